"""Concurrent submissions, over separate connections that commit."""

import asyncio

import pytest
from psycopg._queries import MAX_CACHED_STATEMENT_LENGTH
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
from tenacity import AsyncRetrying, stop_after_delay, wait_fixed

from devstack import roles
from domain.database import async_sessions
from domain.tables import AuditEvent, DeletionRequest, DeletionTarget, IdempotencyKey, Job
from service.deletion_requests import submission
from tests import acting, factories
from tests.conftest import connect, speaking_to
from tests.service.grouped import ANN, GROUPED
from tests.service.submitting import count, submit


@pytest.fixture
async def committed(own_database_url, app):
    """A client whose requests commit, each over a connection of its own, for which it waits as
    long as it takes; and the sessions beside it."""
    engine = acting.async_engine(own_database_url, pool_size=20, pool_timeout=300)
    sessions = async_sessions(engine)
    connect(app, sessions)
    dataset = factories.dataset(definition=GROUPED)
    samples = factories.samples(dataset)
    samples[1].group_digest = factories.digest_of_group(ANN)
    async with sessions.begin() as session:
        session.add_all([dataset, factories.model(dataset), *samples])
    async with speaking_to(app) as client:
        yield client, sessions
    await engine.dispose()


@pytest.mark.parametrize("named", [{}, {"sample_ids": None, "subjects": [ANN]}])
async def test_fifty_equal_requests_at_once_are_one(committed, named):
    client, sessions = committed

    responses = await asyncio.gather(*(submit(client, "key", **named) for _ in range(50)))

    accepted = {response.content for response in responses if response.status_code == 202}
    refused = [response for response in responses if response.status_code != 202]
    assert len(accepted) == 1
    assert {(response.status_code, response.json()["type"]) for response in refused} <= {
        (409, "urn:lethe:problem:idempotency-key-in-flight")
    }
    assert await count(sessions, DeletionRequest, IdempotencyKey) == [1, 1]


async def test_fifty_different_requests_at_once_are_fifty(committed):
    client, sessions = committed

    responses = await asyncio.gather(*(submit(client) for _ in range(50)))

    assert {response.status_code for response in responses} == {202}
    assert await count(sessions, DeletionRequest, DeletionTarget) == [50, 50]


async def test_ten_equal_registrations_at_once_are_one(committed, tmp_path):
    client, sessions = committed
    columns = {"sample_id": "id", "input": "image", "label": "label", "split": "split"}
    body = {"name": "new", "uri": str(tmp_path), "kind": "image", "columns": columns}

    responses = await asyncio.gather(*(client.post("/v1/datasets", json=body) for _ in range(10)))

    assert {response.status_code for response in responses} == {202}
    assert len({response.content for response in responses}) == 1
    assert await count(sessions, Job) == [1]


async def test_a_connection_that_breaks_while_it_is_stored_is_503_and_the_next_one_is_whole(
    committed, own_database_url, problem
):
    client, sessions = committed
    superuser = create_async_engine(roles.as_role(own_database_url, roles.SUPERUSER))
    terminated = text(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    )

    async with sessions.begin() as session:
        await session.execute(text("LOCK TABLE idempotency_keys IN ACCESS EXCLUSIVE MODE"))
        stored = asyncio.create_task(submit(client, "key"))
        async for attempt in AsyncRetrying(wait=wait_fixed(0.05), stop=stop_after_delay(20)):
            with attempt:
                async with superuser.begin() as other:
                    assert (await other.scalars(terminated)).all() == [True]
        problem(await stored, 503, "unavailable")
    await superuser.dispose()

    assert (await submit(client, "key")).status_code == 202
    assert await count(sessions, DeletionRequest, AuditEvent) == [1, 1]


@pytest.mark.parametrize("sql", [submission.TAKEN_BY_MODEL, submission.TAKEN_BY_DATASET])
def test_psycopg_keeps_the_statement_that_takes_a_submission(sql):
    assert len(sql) <= MAX_CACHED_STATEMENT_LENGTH
