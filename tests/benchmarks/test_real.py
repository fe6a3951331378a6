"""The benchmark of networks that people use, on a tiny transformer that reads tokens: every method
gives a row with its figures, rows are made once, and the reports show them."""

import json
import math
from functools import partial

import pytest
import torch
import transformers

from benchmarks.cifar_models import Data
from benchmarks.quality.rows import OURS
from benchmarks.real import __main__ as real
from benchmarks.real import networks, prepare, report
from benchmarks.real.networks import DEV, Problem, Recipe
from benchmarks.real.rows import METHODS, RETRAINED, Bench, settings_of
from worker.unlearning.samples import Samples

CLASSES, TOKENS = 5, 6
CONFIG = transformers.BertConfig(
    vocab_size=40, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
    intermediate_size=16, max_position_embeddings=TOKENS, num_labels=CLASSES,
).to_dict() | {"architectures": ["BertForSequenceClassification"]}  # fmt: skip


def texts(count, seed):
    """Tokens whose second one gives the class away."""
    labels = torch.arange(count) % CLASSES
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(10, 40, (count, TOKENS), generator=generator, dtype=torch.int32)
    tokens[:, 1] = labels + 1
    return Samples(tokens, labels)


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    data = Data(texts(60, 0), texts(40, 1), texts(40, 2))
    requests = networks._random_and_class(data.train)
    problem = Problem(
        name="tiny",
        data=data,
        build=partial(networks._new, CONFIG),
        head="classifier",
        prepare=networks._as_tokens,
        recipe=Recipe(epochs=8, lr=1e-2, batch_size=20),
        requests={name: requests[name] for name in (DEV, "class")},
    )
    return Bench(problem, tmp_path_factory.mktemp("real"))


def test_every_method_has_a_row_for_every_request_and_each_is_made_once(bench, monkeypatch):
    monkeypatch.setattr(real, "SEEDS", (0,))

    rows = list(real.rows_of(bench))

    assert {(row["request"], row["method"]) for row in rows} == {
        (name, method)
        for name in bench.problem.requests.keys() - {DEV}
        for method in (RETRAINED, OURS, *METHODS)
    }
    for row in rows:
        assert all(math.isfinite(row[key]) for key, _ in report.COLUMNS.values())
        assert not any(name.startswith("_") for name in row)
    assert all(row["settings"] == {} for row in rows if row["method"] == OURS)
    monkeypatch.setattr(prepare, "train", None)
    monkeypatch.setattr(Bench, "_made", None)
    assert json.loads(json.dumps(rows)) == list(real.rows_of(bench))
    shown = report.tables({"tiny": {"about": real.about(bench.problem), "rows": rows}})
    assert "BertForSequenceClassification" in shown
    assert "### tiny, class: 12 samples" in shown
    assert shown.count(f"| {OURS} |") == 1


def test_a_retrained_network_never_saw_what_it_is_to_have_forgotten(bench, monkeypatch):
    seen = []
    monkeypatch.setattr(
        prepare, "train", lambda problem, samples, seed: (seen.append(samples), problem.build())[1]
    )
    [*prepare.retrained(bench.problem, "class", bench.cache / "another")]

    assert [len(samples) for samples in seen] == [48] * prepare.RETRAINED
    assert not any((samples.labels == networks.CLASS).any() for samples in seen)


def test_a_baseline_gets_the_settings_of_its_search_and_the_epochs_of_its_budget(bench):
    tried = {method: [*map(json.loads, settings_of(method, bench.problem))] for method in METHODS}

    assert tried["do nothing"] == [{}]
    assert [each["epochs"] for each in tried["fine-tune"]] == [2, 2]
    assert [each["epochs"] for each in tried["NegGrad+"]] == [1, 1]
    assert [each["lr"] for each in tried["SCRUB"]] == [0.005, 0.02]
