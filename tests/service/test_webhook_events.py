"""What is written for webhooks when a request changes."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any
from unittest.mock import ANY
from uuid import uuid4

import pytest
from sqlalchemy import event, func, select, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from domain import outbox, requests
from domain.states import RequestStatus
from domain.tables import (
    DeletionRequest,
    DeletionTarget,
    LogCheckpoint,
    WebhookDelivery,
    WebhookEndpoint,
)
from tests import acting, factories
from tests.service.hooks import HOOK, deliveries, register, submit


async def test_a_received_request_is_told_to_all_who_want_to_know(client, sessions, model):
    wants_all = await register(client)
    wants_it = await register(client, url=f"{HOOK}2", events=["pending", "failed"])
    await register(client, url=f"{HOOK}3", events=["completed"])

    request = await submit(client, subject_ref="SECRET ref", reason="SECRET reason")

    rows = await deliveries(sessions)
    assert {str(row.endpoint_id) for row in rows} == {wants_all["id"], wants_it["id"]}
    for row in rows:
        assert row.event == "lethe.deletion_request.pending"
        told = json.loads(row.body)
        assert told == {
            "specversion": "1.0",
            "id": str(row.id),
            "source": "urn:lethe",
            "type": "lethe.deletion_request.pending",
            "subject": request["id"],
            "time": ANY,
            "datacontenttype": "application/json",
            "data": {
                "id": request["id"],
                "status": "pending",
                "due_at": ANY,
                "finished_at": None,
                "models": [{"model": "cnn", "status": "pending"}],
                "checkpoint": None,
            },
        }
        due_at = datetime.fromisoformat(told["data"]["due_at"])
        assert due_at == datetime.fromisoformat(request["due_at"])
        assert datetime.fromisoformat(told["time"]).tzinfo is not None
        assert "SECRET" not in row.body
        assert "t1" not in row.body
        assert row.id.version == 7


async def test_whoever_is_told_gets_the_newest_checkpoint_of_the_audit_trail(
    client, sessions, store, model
):
    await register(client)
    await store(*(LogCheckpoint(size=size, note=f"lethe\n{size}\n") for size in (9, 10)))

    await submit(client)

    [row] = await deliveries(sessions)
    assert json.loads(row.body)["data"]["checkpoint"] == "lethe\n10\n"


async def test_a_request_with_nothing_to_forget_is_told_as_completed(
    client, sessions, store, model
):
    job = factories.job(model_id=model.id, finished=True)
    await store(job, *factories.tombstones(model, job, "t1"))
    await register(client)

    await submit(client)

    (row,) = await deliveries(sessions)
    assert row.event == "lethe.deletion_request.completed"
    assert json.loads(row.body)["data"]["finished_at"] is not None


async def test_a_replayed_submission_is_not_told_again(client, sessions, model):
    await register(client)
    body = {"model": "cnn", "sample_ids": ["t1"]}
    for _ in range(2):
        await client.post("/v1/deletion-requests", json=body, headers={"Idempotency-Key": "key"})

    assert len(await deliveries(sessions)) == 1


async def test_a_refused_submission_is_not_told(client, sessions, model, problem):
    await register(client)
    body = {"model": "cnn", "sample_ids": ["t1", "nobody"]}

    response = await client.post(
        "/v1/deletion-requests", json=body, headers={"Idempotency-Key": "key"}
    )

    problem(response, 422, "unknown-samples")
    assert await deliveries(sessions) == []


async def test_every_step_of_a_request_is_told(client, sessions, store, model):
    await register(client)
    dataset = factories.dataset(id=model.dataset_id)
    request = factories.request(dataset)
    job = factories.job(model_id=model.id)
    await store(job, request, factories.target(request, model))
    steps = [RequestStatus.SCHEDULED, RequestStatus.RUNNING, RequestStatus.NEEDS_REVIEW,
             RequestStatus.REFUSED]  # fmt: skip

    for step in steps:
        async with sessions.begin() as session:
            await session.run_sync(
                requests.move,
                step,
                DeletionTarget.request_id == request.id,
                actor="worker",
                job_id=job.id,
            )

    told = [json.loads(row.body) for row in await deliveries(sessions)]
    assert [each["type"] for each in told] == [f"lethe.deletion_request.{s}" for s in steps]
    assert [each["data"]["status"] for each in told] == list(steps)
    assert [each["data"]["models"][0]["status"] for each in told] == list(steps)
    assert told[-1]["data"]["finished_at"] is not None


async def test_an_overdue_request_can_be_told_with_the_status_it_has(
    client, sessions, store, model
):
    await register(client, events=["overdue"])
    request = factories.request(factories.dataset(id=model.dataset_id))
    await store(request, factories.target(request, model))

    async with sessions.begin() as session:
        await session.run_sync(outbox.announce, "overdue", [request.id])

    (row,) = await deliveries(sessions)
    assert row.event == "lethe.deletion_request.overdue"
    assert json.loads(row.body)["data"]["status"] == "pending"


async def test_without_the_state_there_is_no_delivery(client, sessions, store, model):
    await register(client)
    request = factories.request(factories.dataset(id=model.dataset_id))
    await store(request, factories.target(request, model))

    async with sessions() as session:
        await session.run_sync(
            requests.move,
            RequestStatus.SCHEDULED,
            DeletionTarget.request_id == request.id,
            actor="worker",
            job_id=None,
        )
        assert await session.scalar(select(func.count()).select_from(WebhookDelivery)) == 1
        await session.rollback()

    assert await deliveries(sessions) == []
    async with sessions() as session:
        assert await session.scalar(select(DeletionRequest.status)) is RequestStatus.PENDING


async def test_two_thousand_requests_are_told_in_two_statements(sync_sessions):
    dataset = factories.dataset()
    model = factories.model(dataset)
    requests = [factories.request(dataset) for _ in range(2_000)]
    targets = [factories.target(request, model) for request in requests]
    hooks = [WebhookEndpoint(url=f"{HOOK}{n}", secret="whsec_") for n in range(2)]
    with sync_sessions.begin() as session:
        for rows in ([dataset], [model], requests, targets, hooks):
            session.add_all(rows)
            session.flush()

    with sync_sessions.begin() as session:
        with counted(session) as statements:
            outbox.announce(session, RequestStatus.SCHEDULED, [request.id for request in requests])
        told = session.execute(
            select(WebhookDelivery.endpoint_id, func.count()).group_by(WebhookDelivery.endpoint_id)
        ).all()

    assert len(statements) == 2
    assert dict(told) == {hook.id: 2_000 for hook in hooks}


async def test_of_no_request_nothing_is_told(sync_sessions):
    with sync_sessions.begin() as session:
        session.add(WebhookEndpoint(url=HOOK, secret="whsec_"))
        outbox.announce(session, "overdue", [])
        assert session.scalar(select(func.count()).select_from(WebhookDelivery)) == 0


async def test_where_nobody_listens_one_statement_finds_out(sync_sessions):
    with sync_sessions.begin() as session, counted(session) as statements:
        outbox.announce(session, RequestStatus.SCHEDULED, [uuid4() for _ in range(10_000)])

    assert len(statements) == 1


@contextmanager
def counted(session: Session) -> Iterator[list[str]]:
    """The statements that are sent while the block lasts."""
    seen: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        seen.append(statement)

    connection = session.connection()
    event.listen(connection, "before_cursor_execute", note)
    yield seen
    event.remove(connection, "before_cursor_execute", note)


def test_deleting_an_endpoint_waits_for_states_that_are_told_to_it(own_database_url):
    """Else the delivery would name an endpoint that is gone, and its transaction would fail."""
    engine = acting.engine(own_database_url)
    dataset = factories.dataset()
    model = factories.model(dataset)
    request = factories.request(dataset)
    hook = WebhookEndpoint(url=HOOK, secret="whsec_")
    with Session(engine, expire_on_commit=False) as session:
        for row in (dataset, model, request, factories.target(request, model), hook):
            session.add(row)
            session.flush()
        session.commit()
    with Session(engine) as telling, Session(engine) as deleting:
        outbox.announce(telling, RequestStatus.PENDING, [request.id])
        deleting.execute(text("SET lock_timeout = '200ms'"))
        with pytest.raises(OperationalError, match="lock timeout"):
            deleting.execute(text("DELETE FROM webhook_endpoints WHERE id = :id"), {"id": hook.id})
        telling.commit()
    engine.dispose()
