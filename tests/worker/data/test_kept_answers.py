"""A version's answers to the samples of its reservoir, kept beside them."""

import pyarrow as pa
import torch

from worker.data import kept_answers, reservoir
from worker.store.artifacts import Store
from worker.unlearning.evaluation import Outputs

MAKER = {"weights": "ab", "torch": "2"}
IDS = ["a", "b", "c", "d"]
TABLE = pa.table({"sample_id": IDS, "split": ["train", "test", "train", "holdout"]})


def answers(*numbers):
    values = torch.tensor([[float(n)] for n in numbers])
    return Outputs(values.expand(-1, 3) / 7, values.expand(-1, 2), torch.tensor(numbers))


KEPT = kept_answers.taken(TABLE, [(["c", "a"], answers(3, 1)), (["b"], answers(2))], MAKER)


def read(table, ids, maker=MAKER):
    rows = reservoir.only(table, ids)
    labels = [IDS.index(name) + 1 for name in rows["sample_id"].to_pylist()]
    return kept_answers.of_rows(rows, torch.tensor(labels), maker)


def test_answers_come_back_bit_by_bit_beside_their_samples(tmp_path):
    store = Store(tmp_path)

    found = read(reservoir.read(store, reservoir.write(store, KEPT)), ["a", "b", "c"])

    expected = answers(1, 2, 3)
    for name in ("features", "logits", "labels"):
        assert torch.equal(getattr(found, name), getattr(expected, name))


def test_a_sample_that_leaves_takes_its_answers_along():
    left = reservoir.without(KEPT, ["a", "d"])

    assert torch.equal(read(left, ["b", "c"]).logits, answers(2, 3).logits)
    assert len(left) == 2


def test_answers_count_only_if_all_are_there_and_by_the_same_maker():
    assert read(KEPT, IDS) is None  # nothing was measured on one of them
    assert read(KEPT, ["a"], MAKER | {"weights": "cd"}) is None
    assert read(KEPT, ["a"], MAKER | {"device": "another"}) is None
    assert read(TABLE, ["a"]) is None


def test_those_of_the_version_before_are_gone():
    anew = kept_answers.taken(KEPT, [(["b"], answers(5))], MAKER | {"weights": "cd"})

    assert read(anew, ["a"], MAKER | {"weights": "cd"}) is None
    assert torch.equal(read(anew, ["b"], MAKER | {"weights": "cd"}).logits, answers(5).logits)
