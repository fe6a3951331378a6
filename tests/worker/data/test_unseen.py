"""The hold-out of a dataset with groups: who was never seen, and which half a group is in."""

from collections import Counter
from types import SimpleNamespace

import pyarrow as pa
import pytest
from sqlalchemy import insert

from domain.states import JobKind, Split
from domain.tables import Sample
from tests import factories
from worker.data import reservoir, unseen
from worker.jobs import train_references


@pytest.fixture
def model(session, dataset):
    """A model whose jobs get 300 samples of each split."""
    model = factories.model(dataset, policy={"evaluation_samples": 300})
    session.add(model)
    session.flush()
    return model


@pytest.fixture
def people(session, dataset):
    """Add samples of a split: for each group how many, with label 0 unless another is given."""
    places = iter(range(10**6))

    def add(split, sizes, *, label=0):
        session.execute(
            insert(Sample),
            [
                {
                    "dataset_id": dataset.id, "sample_id": f"{name}-{next(places)}", "position": 0,
                    "label": label, "split": split,
                    "group_digest": None if name == "own" else name.encode(),
                }
                for name, count in sizes.items()
                for _ in range(count)
            ],
        )  # fmt: skip

    return add


def halves(drawn):
    """How many samples of each group are in the half for calibration, and in the audit's."""
    found = Counter(), Counter()
    for (name, _), side in zip(
        drawn.named, unseen.sides(drawn.numbers, drawn.leaking), strict=True
    ):
        found[side][name.rsplit("-", 1)[0]] += 1
    return found


def test_people_who_stand_in_training_are_left_out(people, session, model):
    people(Split.TRAIN, {"both": 5, "train": 5})
    people(Split.HOLDOUT, {"both": 50, "new": 20, "newer": 20, "own": 3})

    drawn = unseen.draw(session, model)

    calibration, audit = halves(drawn)
    assert sorted(calibration + audit) == ["new", "newer", "own"]
    assert not any(drawn.leaking)


def test_no_group_is_in_both_halves_and_both_get_as_much(people, session, model):
    sizes = {f"g{n}": 1 + n for n in range(21)}
    people(Split.HOLDOUT, sizes)

    calibration, audit = halves(unseen.draw(session, model))

    assert not set(calibration) & set(audit)
    assert calibration + audit == Counter(sizes)
    assert abs(len(calibration) - len(audit)) <= 1
    assert abs(calibration.total() - audit.total()) <= 21


def test_groups_of_one_class_are_in_both_halves(people, session, model):
    """Sizes would put all groups of the second class into one half."""
    people(Split.HOLDOUT, {"a": 40, "b": 10})
    people(Split.HOLDOUT, {"c": 30, "d": 20}, label=1)

    for half in halves(unseen.draw(session, model)):
        assert len(half & Counter(a=99, b=99)) == len(half & Counter(c=99, d=99)) == 1


def test_a_large_group_does_not_crowd_out_the_others(people, session, model):
    people(Split.HOLDOUT, {"large": 900, **{f"g{n}": 9 for n in range(20)}})

    calibration, audit = halves(unseen.draw(session, model))

    assert (calibration + audit)["g7"] == 9
    assert (calibration + audit)["large"] == 300 - 20 * 9


def test_where_all_stand_in_training_the_audit_has_nobody(people, session, model):
    people(Split.TRAIN, {"a": 5, "b": 5})
    people(Split.HOLDOUT, {"a": 15, "b": 15})

    calibration, audit = halves(unseen.draw(session, model))

    assert calibration == {"a": 15, "b": 15}
    assert not audit


def test_a_single_new_person_calibrates(people, session, model):
    people(Split.TRAIN, {"a": 5})
    people(Split.HOLDOUT, {"a": 15, "new": 15})

    calibration, audit = halves(unseen.draw(session, model))

    assert (calibration, audit) == ({"new": 15}, {})


def test_few_new_samples_calibrate_together_with_others(people, session, model):
    people(Split.TRAIN, {"a": 5})
    people(Split.HOLDOUT, {"a": 15, "new": 3, "newer": 3})

    calibration, audit = halves(unseen.draw(session, model))

    assert calibration.total() == 18
    assert audit.total() == 3
    assert "a" not in audit


def test_reference_models_are_not_shown_people_they_learn_from_as_unseen(people, session, model):
    people(Split.TRAIN, {"both": 5, "train": 5})
    people(Split.HOLDOUT, {"both": 3, "new": 3, "own": 2})
    job = factories.job(model_id=model.id, kind=JobKind.TRAIN_REFERENCES)
    for row in (job, factories.version(model, job, figures={"classes": 2})):
        session.add(row)
        session.flush()

    order = train_references._read_order(
        session, SimpleNamespace(claim=SimpleNamespace(job_id=job.id))
    )

    assert len(order.training) == 10
    names = Counter(name.rsplit("-", 1)[0] for name, _ in order.holdout)
    assert names == {"new": 3, "own": 2}


def test_a_group_stays_in_its_half_until_the_other_is_empty():
    numbers, leaking = [0, 0, 3, 4, 7], [False] * 5

    assert unseen.sides(numbers, leaking) == [False, False, True, False, True]
    assert unseen.sides(numbers[2:], leaking[2:]) == [True, False, True]
    assert unseen.sides([3, 7, 7], leaking[:3]) == [False, True, True]
    assert unseen.sides([0, 0, 4], leaking[:3]) == [True, True, False]
    assert unseen.sides([7, 7], leaking[:2]) == [False, False]
    assert unseen.sides([], []) == []
    assert unseen.sides([-1, 3], [True, False]) == [False, True]


def test_the_reservoir_holds_numbers_and_no_identity():
    table = pa.table(
        {
            "sample_id": ["t", "h0", "h1", "h2", "e"],
            "split": ["train", "holdout", "holdout", "holdout", "test"],
        }
    )
    drawn = unseen.Drawn([("h2", 3), ("h0", 1)], [3, 0], [False, False])

    kept = unseen.marked(table, drawn)

    assert kept["sample_id"].to_pylist() == ["t", "h0", "h2", "e"]
    assert kept[unseen.GROUP].to_pylist() == [None, 0, 3, None]
    calibration, audit = reservoir.holdout_halves(kept)
    assert calibration["sample_id"].to_pylist() == ["h0"]
    assert audit["sample_id"].to_pylist() == ["h2"]
    assert reservoir.leaking(kept) == 0


def test_remarks_say_what_is_missing():
    report = {
        "groups": {
            "leaking_groups": {"holdout": 12, "test": 0},
            "groups_by_split": {"holdout": 40},
            "leaking_samples": {"holdout": 480},
        }
    }

    (said,) = unseen.remarks(report, audited=5, leaking=0)
    assert said.startswith("12 of the 40 hold-out groups also stand in training")
    assert len(unseen.remarks(report, audited=0, leaking=7)) == 3
    assert unseen.remarks({}, audited=0, leaking=0) == []
