"""Models that cannot be registered, and datasets that have changed."""

import sys

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.torch import save_file, save_model
from sqlalchemy import text, update

from domain.errors import JobError, LeaseLost
from domain.tables import Sample
from tests.worker.jobs.register_model.digit_networks import (
    PARTS,
    PREPROCESSING,
    convolutional,
    digits_table,
)
from worker.engine import lease
from worker.jobs.register_model import register_model


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"head": "fc"}, "no module 'fc' to use as its head; its linear modules are 5, 7"),
        ({"head": ""}, "no module '' to use as its head"),
        ({"head": "0"}, "'0' takes"),
        ({"weights_uri": "/etc/passwd"}, "outside the allowed directories"),
        (
            {"weights_uri": "https://example.org/weights"},
            "Locations such as .https. are not supported",
        ),
        (
            {"preprocessing": {**PREPROCESSING, "mean": [0.1, 0.2, 0.3]}},
            "names 3 channels in mean or std, but the inputs have 1",
        ),
    ],
)
def test_a_model_that_is_not_as_registered_is_refused(digits, named, run, columns, message):
    model = named(digits, **columns)

    with pytest.raises(JobError, match=message):
        run(model)


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("Twice", "enters its head 'head' 2 times in one forward pass"),
        ("Idle", "never calls 'head'"),
        ("Choosy", "The network raised RuntimeError: mat1 and mat2 shapes"),
    ],
)
def test_a_network_that_cannot_be_used_is_refused(digits, named, run, tmp_path, factory, message):
    network = getattr(sys.modules["toy_models"], factory)()
    save_model(network, str(tmp_path / "odd.safetensors"))
    model = named(
        digits,
        weights_uri=str(tmp_path / "odd.safetensors"),
        architecture={"kind": "python", "factory": f"toy_models:{factory}", "arguments": {}},
        head="head",
    )

    with pytest.raises(JobError, match=message):
        run(model)


def test_fewer_classes_than_labels_are_refused(digits, named, run, tmp_path):
    save_model(convolutional(9), str(tmp_path / "nine.safetensors"))
    model = named(
        digits,
        weights_uri=str(tmp_path / "nine.safetensors"),
        architecture={
            "kind": "python", "factory": "toy_models:convolutional", "arguments": {"classes": 9},
        },
    )  # fmt: skip

    with pytest.raises(JobError, match="has 9 classes, but the dataset has the label 9"):
        run(model)


def test_a_network_that_overflows_is_refused(digits, named, run, tmp_path, trained):
    weights = {name: tensor.clone() for name, tensor in trained.state_dict().items()}
    weights["7.weight"] *= 1e38
    save_file(weights, tmp_path / "huge.safetensors")
    model = named(digits, weights_uri=str(tmp_path / "huge.safetensors"))

    with pytest.raises(JobError, match="NaN or infinite values on the dataset's samples"):
        run(model)


def test_a_pickle_never_enters_the_store(digits, named, bench_for, tmp_path, trained):
    torch.save(trained.state_dict(), tmp_path / "pickle.safetensors")
    bench = bench_for(named(digits, weights_uri=str(tmp_path / "pickle.safetensors")))

    with pytest.raises(JobError, match="Only safetensors weights are accepted"):
        register_model(bench)

    assert not bench.store.root.exists()


def changed(table: pa.Table, what: str) -> pa.Table:
    """The digits with one thing different, though indexed as they were."""
    reordered = np.arange(len(table))
    reordered[[1500, 1501]] = [1501, 1500]
    relabelled, moved = table["digit"].to_numpy().copy(), PARTS.copy()
    relabelled[1500], moved[1500] = (relabelled[1500] + 1) % 10, "valid"
    return {
        "order": table.take(reordered),
        "label": table.set_column(2, "digit", pa.array(relabelled)),
        "split": table.set_column(3, "part", pa.array(moved)),
        "fewer": table.slice(0, 1700),
        "other": table.set_column(0, "id", pa.array([f"d{n}" for n in range(len(table))])),
    }[what]


@pytest.mark.parametrize("what", ["order", "label", "split", "fewer", "other"])
def test_a_dataset_that_changed_since_it_was_indexed_is_refused(digits, named, run, write, what):
    write(changed(digits_table(), what))

    with pytest.raises(JobError, match="The dataset changed since it was indexed"):
        run(named(digits))


def test_a_sample_that_is_gone_from_the_index_is_missed(digits, named, run, sync_sessions):
    with sync_sessions.begin() as session:
        session.execute(
            update(Sample)
            .where(Sample.dataset_id == digits.id, Sample.sample_id == "digit-7")
            .values(sample_id="gone")
        )

    with pytest.raises(JobError, match="The dataset changed since it was indexed"):
        run(named(digits, policy={"reservoir_samples": 10, "evaluation_samples": 10}))


def test_a_worker_that_lost_the_job_stores_no_version(digits, named, run, monkeypatch):
    model = named(digits)
    report = lease.report

    def lost_at_the_end(session, held, *, phase, progress):
        report(session, held, phase=phase, progress=progress)
        if phase.startswith("measuring"):
            session.execute(text("UPDATE jobs SET attempt = attempt + 1"))

    monkeypatch.setattr(lease, "report", lost_at_the_end)
    with pytest.raises(LeaseLost):
        run(model)
