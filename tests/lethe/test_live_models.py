"""The client and the command line register versions and states, and delete."""

from datetime import UTC, datetime
from uuid import uuid4

import pytest

from domain.states import JobKind
from lethe import Lethe, errors
from lethe.schemas.registrations import TrainedOnSplit
from tests import factories
from tests.conftest import KEY
from tests.lethe.conftest import Service

READ_AT = datetime(2026, 11, 1, tzinfo=UTC)


@pytest.fixture
def names(service: Service):
    """A dataset and a model of it that nobody else uses."""
    dataset = factories.dataset(name=f"set-{uuid4().hex[:8]}")
    model = factories.model(dataset, name=f"cnn-{uuid4().hex[:8]}")
    index = factories.job(dataset_id=dataset.id, kind=JobKind.INDEX_DATASET, finished=True)
    job = factories.job(model_id=model.id, kind=JobKind.REGISTER_MODEL, finished=True)
    version = factories.version(model, job, weights_sha256=uuid4().hex * 2)
    service.put(dataset, model, index, job, version)
    return dataset.name, model.name


@pytest.fixture
def shell(command, service: Service, monkeypatch):
    monkeypatch.setenv("LETHE_URL", service.url)
    monkeypatch.setenv("LETHE_API_KEY", KEY)
    return command


def test_the_client_registers_follows_and_deletes(lethe: Lethe, service: Service, names):
    dataset, model = names
    weights = str(service.data / "new.safetensors")

    made = lethe.register_version(
        model, weights=weights, trained_on=TrainedOnSplit(split_read_at=READ_AT)
    )
    state = lethe.register_state(dataset, idempotency_key="k")

    assert lethe.read_registration(model, made.id) == made
    assert (made.is_settled, made.job_ids()) == (False, [made.job_id])
    assert isinstance(made.trained_on, TrainedOnSplit)
    assert lethe.register_state(dataset, idempotency_key="k") == state
    assert lethe.read_state(dataset, state.id) == state
    assert not state.is_settled
    with pytest.raises(errors.NotYet):
        lethe.register_state(dataset)
    with pytest.raises(errors.Conflict):
        lethe.delete_model(model)
    with pytest.raises(errors.Conflict):
        lethe.delete_dataset(dataset)


def test_a_deleted_model_is_settled_once_it_is_purged(lethe: Lethe, names):
    gone = lethe.delete_model(names[1])

    assert (gone.status, gone.is_settled, gone.champion) == ("deleted", False, None)
    assert lethe.delete_model(names[1]) == gone


def test_the_command_line_does_so_too(shell, service: Service, names):
    dataset, model = names
    weights = service.data / "new.safetensors"

    wrong = shell("model", "add-version", model, weights, "--json")
    when = shell("model", "add-version", model, weights, "--split-read-at", "2026-11-01")
    made = shell(
        "model", "add-version", model, weights, "--trained-on", service.data / "ids.parquet",
        "--json",
    )  # fmt: skip
    state = shell("dataset", "add-state", dataset, "--json")
    refused = shell("model", "delete", model, "--yes")
    unasked = shell("dataset", "delete", dataset)

    assert (wrong.status, when.status) == (2, 2)
    assert "--split-read-at" in wrong.json["error"]["detail"]
    assert made.status == 0, made.err
    assert made.json["trained_on"]["column"] == "sample_id"
    assert state.json["status"] == "pending"
    assert "still needed" in refused.err
    assert refused.status != 0
    assert unasked.status != 0
