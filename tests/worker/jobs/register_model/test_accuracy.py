"""Registration notices that a network does not get the inputs or labels it was trained with."""

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.torch import save_model
from sqlalchemy import select

from domain import objects
from domain.errors import JobError
from domain.preprocessing import InputKind
from domain.tables import AuditEvent, ModelVersion
from tests.worker.jobs.register_model.digit_networks import (
    DIGITS,
    PARTS,
    PREPROCESSING,
    convolutional,
    digits_table,
)
from worker.data import decode, reservoir, specimens


def true_accuracy(network, part):
    mine = part == PARTS
    prepare = decode.preparer(PREPROCESSING, InputKind.PIXELS)
    images = prepare(torch.from_numpy(DIGITS.images[mine][:, None]))
    with torch.no_grad():
        right = network(images).argmax(1).numpy() == DIGITS.target[mine]
    return float(right.mean())


def test_what_lethe_measures_is_what_the_team_measured(
    digits, named, run, trained, sync_sessions, refreshed
):
    stated = {
        "train": round(true_accuracy(trained, "train"), 3),
        "holdout": round(true_accuracy(trained, "valid"), 3),
        "tolerance": 0.01,
    }
    model = named(digits, expected_accuracy=stated)

    run(model)

    with sync_sessions() as session:
        version = session.scalars(select(ModelVersion).filter_by(model_id=model.id)).one()
        event = session.scalars(select(AuditEvent).filter_by(event="model.checked")).one()
    check = version.figures["accuracy_check"]
    assert check["train"] == true_accuracy(trained, "train")
    assert event.data["train_right"] / event.data["train_samples"] == check["train"]
    assert abs(check["holdout"] - stated["holdout"]) < 0.06  # 150 of 359 samples
    assert check["expected"] == stated
    assert event.data.keys() == {
        "job", "train_samples", "train_right", "holdout_samples", "holdout_right",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("wrong", "stated"),
    [
        ({"preprocessing": {**PREPROCESSING, "scale": 1.0}}, {"train": 0.97}),
        ({"preprocessing": {**PREPROCESSING, "mean": [8.0]}}, {"holdout": 0.93}),
    ],
)
def test_a_wrong_preprocessing_is_noticed(digits, named, run, wrong, stated):
    expected = {"train": None, "holdout": None, "tolerance": 0.01, **stated}

    with pytest.raises(JobError, match=r"`expected_accuracy\.(train|holdout)` is 0\.9"):
        run(named(digits, expected_accuracy=expected, **wrong))


def test_another_order_of_the_classes_is_noticed_without_a_stated_accuracy(indexed, named, run):
    table = digits_table()
    other = (table["digit"].to_numpy() + 3) % 10

    with pytest.raises(JobError, match="no better than chance"):
        run(named(indexed(table.set_column(2, "digit", pa.array(other)))))


def test_an_untrained_network_is_registered_if_that_is_accepted(
    digits, named, run, tmp_path, sync_sessions
):
    torch.manual_seed(1)
    save_model(convolutional(), str(tmp_path / "new.safetensors"))
    model = named(digits, weights_uri=str(tmp_path / "new.safetensors"), accept_accuracy=True)

    run(model)

    with sync_sessions() as session:
        event = session.scalars(select(AuditEvent).filter_by(event="model.checked")).one()
    assert event.data["accepted"] == ["no_better_than_chance"]
    assert event.data["train_right"] < 0.2 * event.data["train_samples"]


def test_a_version_has_ten_specimens_and_something_to_see(digits, named, run, sync_sessions):
    model = named(digits)

    bench = run(model)

    with sync_sessions() as session:
        version = session.scalars(select(ModelVersion).filter_by(model_id=model.id)).one()
    rows = specimens.of_table(reservoir.read(bench.store, version.reservoir_sha256))
    assert sorted(rows["label"].to_pylist()) == list(range(10))
    assert "train" not in rows["split"].to_pylist()
    position = int(rows["sample_id"][0].as_py().removeprefix("digit-"))
    expected = (DIGITS.images[position] / 16 - 0.5) / 0.5
    assert np.allclose(specimens.inputs_of(rows)[0, 0], expected, atol=1e-6)
    for what in (objects.PREVIEW_FIGURES, objects.PREVIEW_PICTURE):
        assert objects.beside(bench.store.root, version.reservoir_sha256, what).is_file()
