"""Submissions that are refused, and leave nothing behind."""

from datetime import UTC, datetime, timedelta

import pytest

from domain.states import RegistrationStatus, Split
from domain.tables import AuditEvent, DeletionRequest, IdempotencyKey, RequestSample, Sample
from tests import factories
from tests.service.submitting import count, submit


async def test_unknown_ids_are_counted_listed_and_nothing_is_stored(
    client, sessions, model, problem
):
    unknown = [f"u{n}" for n in range(150)]

    response = await submit(client, sample_ids=["t1", *reversed(unknown), "t2", "u0"])

    refusal = problem(response, 422, "unknown-samples")
    assert refusal["unknown_count"] == 150
    assert refusal["unknown_ids"] == [f"u{n}" for n in reversed(range(50, 150))]
    assert await count(sessions, DeletionRequest, RequestSample, AuditEvent, IdempotencyKey) == [
        0,
        0,
        0,
        0,
    ]


async def test_ids_of_another_dataset_are_unknown(client, store, model, problem):
    other = factories.dataset(name="other")
    await store(
        other,
        Sample(dataset_id=other.id, sample_id="x", position=0, label=0, split=Split.TRAIN),
    )

    problem(await submit(client, sample_ids=["x"]), 422, "unknown-samples")


async def test_too_many_ids_are_refused(client, model, settings, problem):
    ids = [f"t{n}" for n in range(settings.max_samples_per_request + 1)]

    problem(await submit(client, sample_ids=ids), 413, "too-many-samples")


@pytest.mark.parametrize(
    "change",
    [
        {"sample_ids": []},
        {"sample_ids": [""]},
        {"sample_ids": ["a\0b"]},
        {"sample_ids": ["x" * 513]},
        {"sample_ids": [17]},
        {"sample_ids": "t1"},
        {"sample_ids": [None]},
        {"model": "cnn", "dataset": "digits"},
        {"model": None},
        {"objective": "guess"},
        {"received_at": "2026-01-01T00:00:00"},
        {"received_at": "0001-01-01T00:00:00+14:00"},
        pytest.param(
            {"received_at": (datetime.now(UTC) + timedelta(hours=1)).isoformat()},
            id="received in an hour",
        ),
        {"subject_ref": "a\0"},
        {"reason": "\0"},
        {"unknown": 1},
    ],
    ids=lambda change: str(change)[:40],
)
async def test_a_wrong_body_is_refused(client, sessions, model, change, problem):
    problem(await submit(client, **change), 422, "invalid-request")
    assert await count(sessions, DeletionRequest) == [0]


@pytest.mark.parametrize("subject", [{"model": "none"}, {"model": None, "dataset": "none"}])
async def test_an_unknown_model_or_dataset_is_404(client, model, subject, problem):
    problem(await submit(client, **subject), 404, "not-found")


@pytest.mark.parametrize("status", [RegistrationStatus.PENDING, RegistrationStatus.FAILED])
async def test_a_model_must_be_ready(client, store, model, status, problem):
    dataset = factories.dataset(name="other")
    await store(dataset, factories.model(dataset, name="second", status=status))

    problem(await submit(client, model="second"), 409, "not-ready")
    problem(await submit(client, model=None, dataset="other"), 409, "not-ready")


async def test_exact_needs_a_recipe_of_every_model(client, sessions, store, model, problem):
    dataset = factories.dataset(id=model.dataset_id)
    await store(factories.model(dataset, name="able", recipe="zoo:train"))

    refusal = problem(await submit(client, exact=True), 422, "no-recipe")
    problem(await submit(client, model=None, dataset="digits", exact=True), 422, "no-recipe")
    accepted = await submit(client, model="able", exact=True)

    assert "cnn" in refusal["detail"]
    assert accepted.json()["exact"] is True
    assert await count(sessions, DeletionRequest) == [1]


async def test_a_dataset_without_models_has_nobody_to_forget(client, store, problem):
    await store(factories.dataset())

    problem(await submit(client, model=None, dataset="digits"), 409, "not-ready")


async def test_a_dataset_waits_for_its_pending_models(client, store, model, problem):
    dataset = factories.dataset(id=model.dataset_id)
    await store(factories.model(dataset, name="late", status=RegistrationStatus.PENDING))

    refusal = problem(await submit(client, model=None, dataset="digits"), 409, "not-ready")

    assert "late" in refusal["detail"]
