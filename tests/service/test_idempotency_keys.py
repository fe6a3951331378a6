"""One key stands for one request, and a replay gets the original answer."""

from datetime import timedelta

import pytest
from sqlalchemy import func, update

from domain.states import RequestStatus
from domain.tables import DeletionRequest, DeletionTarget, IdempotencyKey
from tests.service.submitting import URL, count, submit


async def test_sent_twice_is_stored_once_and_answered_equally(client, sessions, model):
    first = await submit(client, "key")
    second = await submit(client, "key")

    assert first.content == second.content
    assert first.headers["Location"] == second.headers["Location"]
    assert second.status_code == 202
    assert second.headers["Idempotent-Replayed"] == "true"
    assert await count(sessions, DeletionRequest) == [1]


async def test_a_replay_gives_the_answer_of_then(client, sessions, model):
    first = await submit(client, "key")
    async with sessions.begin() as session:
        await session.execute(update(DeletionRequest).values(status=RequestStatus.SCHEDULED))
        await session.execute(
            update(DeletionTarget).values(status=RequestStatus.CANCELLED, already_forgotten=1)
        )

    assert (await submit(client, "key")).content == first.content


async def test_the_form_of_the_body_does_not_matter_to_its_key(client, sessions, model):
    text = '{"sample_ids": ["t1"],   "model": "cnn", "received_at": "2026-01-01T01:00:00+01:00"}'
    headers = {"Idempotency-Key": "key", "Content-Type": "application/json"}
    first = await client.post(URL, content=text, headers=headers)

    second = await submit(
        client,
        "key",
        sample_ids=["t1"],
        objective="untrain_samples",
        received_at="2026-01-01T00:00:00Z",
    )

    assert first.content == second.content


async def test_a_key_stands_for_one_body(client, sessions, model, problem):
    await submit(client, "key")

    problem(await submit(client, "key", sample_ids=["t3"]), 422, "idempotency-key-reused")
    assert await count(sessions, DeletionRequest) == [1]


async def test_a_key_is_forgotten_after_the_retention(client, sessions, model, settings):
    first = await submit(client, "key")
    async with sessions.begin() as session:
        age = settings.idempotency_retention + timedelta(seconds=1)
        await session.execute(update(IdempotencyKey).values(created_at=func.now() - age))

    second = await submit(client, "key", sample_ids=["t3"])

    assert second.status_code == 202
    assert second.json()["id"] != first.json()["id"]


@pytest.mark.parametrize("key", ["", "a b", "k" * 256, "\u00e9", "a\tb"])
async def test_a_key_of_visible_characters_is_required(client, sessions, model, key, problem):
    body = {"model": "cnn", "sample_ids": ["t1"]}

    response = await client.post(URL, json=body, headers={"Idempotency-Key": key.encode()})

    problem(response, 400, "idempotency-key-missing")
    problem(await client.post(URL, json=body), 400, "idempotency-key-missing")
    assert await count(sessions, DeletionRequest) == [0]
