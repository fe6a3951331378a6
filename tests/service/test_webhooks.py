"""The routes of webhooks, and what is written for them when a request changes."""

import asyncio
import json
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any
from unittest.mock import ANY
from uuid import UUID, uuid4

import pytest
from sqlalchemy import create_engine, event, func, select, text, update
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import Session

from domain import doorbell, outbox, requests
from domain.database import async_sessions
from domain.settings import ApiSettings
from domain.states import DeliveryFailure, DeliveryStatus, RequestStatus, WebhookStatus
from domain.tables import (
    AuditEvent,
    DeletionRequest,
    DeletionTarget,
    LogCheckpoint,
    WebhookDelivery,
    WebhookEndpoint,
)
from tests import factories
from tests.conftest import connect

URL = "/v1/webhooks"
HOOK = "https://dsr.example.com/hooks?token=SECRET"


async def register(client: Any, **body: Any) -> dict[str, Any]:
    response = await client.post(URL, json={"url": HOOK} | body)
    assert response.status_code == 201, response.text
    registered: dict[str, Any] = response.json()
    return registered


async def deliveries(sessions: Any) -> list[WebhookDelivery]:
    async with sessions() as session:
        return list(await session.scalars(select(WebhookDelivery).order_by(WebhookDelivery.id)))


async def submit(client: Any, **body: Any) -> Any:
    body = {"model": "cnn", "sample_ids": ["t1"]} | body
    key = {"Idempotency-Key": str(uuid4())}
    response = await client.post("/v1/deletion-requests", json=body, headers=key)
    assert response.status_code == 202, response.text
    return response.json()


# Registration


async def test_is_registered_with_a_secret_that_is_shown_once(client):
    response = await client.post(URL, json={"url": HOOK, "events": ["completed", "overdue"]})

    assert response.status_code == 201
    assert response.headers["Cache-Control"] == "no-store"
    body = response.json()
    secret = body.pop("secret")
    assert secret.startswith("whsec_")
    assert len(b64decode(secret.removeprefix("whsec_"), validate=True)) == 32
    assert body == {
        "id": ANY,
        "url": HOOK,
        "description": None,
        "events": ["completed", "overdue"],
        "status": "enabled",
        "disabled_reason": None,
        "previous_secret_until": None,
        "created_at": ANY,
    }
    read = await client.get(response.headers["Location"])
    assert read.json() == body
    assert "secret" not in (await client.get(URL)).json()["items"][0]


@pytest.mark.parametrize(
    "url",
    [
        "http://dsr.example.com/",
        "ftp://dsr.example.com/",
        "dsr.example.com",
        "https://",
        "https://user:password@dsr.example.com/",
        "https://127.0.0.1/",
        "https://[::1]/",
        "https://169.254.169.254/latest/meta-data/",
        "https://localhost/",
        "https://0x7f.1/",
    ],
)
async def test_a_url_that_nothing_may_be_sent_to_is_refused(client, sessions, problem, url):
    problem(await client.post(URL, json={"url": url}), 422, "destination-refused")

    async with sessions() as session:
        assert await session.scalar(select(func.count()).select_from(WebhookEndpoint)) == 0


async def test_while_developing_it_may_lie_on_this_machine(app, client, settings: ApiSettings):
    here = settings.model_copy(update={"webhook_development": True})
    app.state.settings = here

    assert (await register(client, url="http://127.0.0.1:8000/"))["status"] == "enabled"


@pytest.mark.parametrize("events", [[], ["done"], ["test"], "completed"])
async def test_events_that_do_not_happen_cannot_be_asked_for(client, problem, events):
    problem(await client.post(URL, json={"url": HOOK, "events": events}), 422, "invalid-request")


async def test_one_url_is_registered_once(client, problem):
    first = await register(client)

    refusal = problem(await client.post(URL, json={"url": HOOK}), 409, "webhook-exists")

    assert refusal["webhook_id"] == first["id"]


async def test_there_are_twenty_at_most(client, problem):
    for number in range(20):
        await register(client, url=f"{HOOK}{number}")

    problem(await client.post(URL, json={"url": HOOK}), 409, "too-many-webhooks")


async def test_are_listed_newest_first_page_by_page(client):
    ids = [(await register(client, url=f"{HOOK}{number}"))["id"] for number in range(3)]

    page = (await client.get(URL, params={"limit": 2})).json()
    rest = (await client.get(URL, params={"cursor": page["next_cursor"]})).json()

    assert [item["id"] for item in page["items"] + rest["items"]] == ids[::-1]
    assert rest["next_cursor"] is None


async def test_changes_what_is_given_and_nothing_else(client):
    webhook = await register(client, events=["failed"], description="to the DSR tool")
    url = f"{URL}/{webhook['id']}"

    changed = (await client.patch(url, json={"description": "elsewhere"})).json()
    assert (changed["description"], changed["events"]) == ("elsewhere", ["failed"])
    changed = (await client.patch(url, json={"events": None})).json()
    assert (changed["description"], changed["events"]) == ("elsewhere", None)


async def test_a_disabled_one_gives_up_what_waits_and_is_told_nothing(client, sessions, model):
    webhook = await register(client)
    url = f"{URL}/{webhook['id']}"
    await submit(client)

    disabled = (await client.patch(url, json={"status": "disabled"})).json()
    again = (await client.patch(url, json={"status": "disabled"})).json()
    await submit(client)

    assert disabled == again
    assert (disabled["status"], disabled["disabled_reason"]) == ("disabled", ANY)
    (delivery,) = (await client.get(f"{url}/deliveries")).json()["items"]
    assert (delivery["status"], delivery["failure"]) == ("dead", "disabled")
    enabled = (await client.patch(url, json={"status": "enabled"})).json()
    assert (enabled["status"], enabled["disabled_reason"]) == ("enabled", None)
    await submit(client)
    assert [row.status for row in await deliveries(sessions)] == [
        DeliveryStatus.DEAD,
        DeliveryStatus.WAITING,
    ]


async def test_is_deleted_with_its_deliveries(client, sessions, model, problem):
    webhook = await register(client)
    await submit(client)

    response = await client.delete(f"{URL}/{webhook['id']}")

    assert (response.status_code, response.content) == (204, b"")
    assert await deliveries(sessions) == []
    problem(await client.get(f"{URL}/{webhook['id']}"), 404, "not-found")


async def test_a_rotated_secret_signs_on_for_a_day(client, sessions):
    webhook = await register(client)

    response = await client.post(f"{URL}/{webhook['id']}/rotate-secret")

    rotated = response.json()
    assert response.headers["Cache-Control"] == "no-store"
    async with sessions() as session:
        row = await session.get_one(WebhookEndpoint, UUID(webhook["id"]))
    assert (row.secret, row.previous_secret) == (rotated["secret"], webhook["secret"])
    left = datetime.fromisoformat(rotated["previous_secret_until"]) - datetime.now().astimezone()
    assert timedelta(hours=23, minutes=59) < left <= timedelta(hours=24)


async def test_the_audit_trail_is_told_without_urls_and_secrets(client, sessions):
    webhook = await register(client)
    url = f"{URL}/{webhook['id']}"
    await client.post(f"{url}/rotate-secret")
    await client.patch(url, json={"status": "disabled"})
    await client.patch(url, json={"status": "enabled"})
    await client.delete(url)

    async with sessions() as session:
        told = list(await session.scalars(select(AuditEvent).order_by(AuditEvent.id)))

    assert [each.event for each in told] == [
        "webhook.registered",
        "webhook.secret_rotated",
        "webhook.disabled",
        "webhook.enabled",
        "webhook.deleted",
    ]
    assert {str(each.subject_id) for each in told} == {webhook["id"]}
    assert "SECRET" not in str([each.data for each in told])


# Deliveries


async def test_a_test_is_queued_and_rung_for(client, sessions, queue):
    webhook = await register(client, events=["failed"])

    response = await client.post(f"{URL}/{webhook['id']}/test")

    assert response.status_code == 202
    assert response.json() == {
        "id": ANY,
        "event": "lethe.webhook.test",
        "status": "waiting",
        "attempt": 0,
        "next_attempt_at": ANY,
        "response_status": None,
        "failure": None,
        "created_at": ANY,
        "finished_at": None,
    }
    (row,) = await deliveries(sessions)
    assert json.loads(row.body) == {
        "specversion": "1.0",
        "id": response.json()["id"],
        "source": "urn:lethe",
        "type": "lethe.webhook.test",
        "subject": webhook["id"],
        "time": ANY,
        "datacontenttype": "application/json",
        "data": {"webhook_id": webhook["id"]},
    }
    queue.send_task.assert_called_once_with(doorbell.DELIVER, args=(), expires=60)


async def test_deliveries_are_listed_newest_first_and_by_status(client, sessions):
    webhook = await register(client)
    url = f"{URL}/{webhook['id']}"
    ids = [(await client.post(f"{url}/test")).json()["id"] for _ in range(3)]
    async with sessions.begin() as session:
        await session.execute(
            update(WebhookDelivery)
            .where(WebhookDelivery.id == UUID(ids[0]))
            .values(
                status=DeliveryStatus.DEAD,
                attempt=10,
                failure=DeliveryFailure.STATUS,
                response_status=503,
                finished_at=func.now(),
            )
        )

    page = (await client.get(f"{url}/deliveries", params={"limit": 2})).json()
    rest = (await client.get(f"{url}/deliveries", params={"cursor": page["next_cursor"]})).json()
    (dead,) = (await client.get(f"{url}/deliveries", params={"status": "dead"})).json()["items"]

    assert [item["id"] for item in page["items"] + rest["items"]] == ids[::-1]
    assert (dead["id"], dead["failure"], dead["response_status"]) == (ids[0], "status", 503)
    assert (dead["attempt"], dead["next_attempt_at"]) == (10, None)


async def test_what_was_given_up_is_tried_once_more(client, sessions, queue, problem):
    webhook = await register(client)
    url = f"{URL}/{webhook['id']}"
    delivery = (await client.post(f"{url}/test")).json()
    retry = f"{url}/deliveries/{delivery['id']}/retry"
    problem(await client.post(retry), 409, "delivery-not-dead")
    await client.patch(url, json={"status": "disabled"})
    problem(await client.post(retry), 409, "webhook-disabled")
    problem(await client.post(f"{url}/test"), 409, "webhook-disabled")
    await client.patch(url, json={"status": "enabled"})
    queue.reset_mock()

    response = await client.post(retry)

    assert response.status_code == 202
    assert (response.json()["status"], response.json()["finished_at"]) == ("waiting", None)
    assert datetime.fromisoformat(response.json()["next_attempt_at"]) <= datetime.now().astimezone()
    queue.send_task.assert_called_once_with(doorbell.DELIVER, args=(), expires=60)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", ""),
        ("PATCH", ""),
        ("DELETE", ""),
        ("POST", "/rotate-secret"),
        ("POST", "/test"),
        ("GET", "/deliveries"),
        ("POST", f"/deliveries/{UUID(int=1)}/retry"),
    ],
)
async def test_unknown_is_404(client, problem, method, path):
    body = {"json": {}} if method == "PATCH" else {}

    problem(await client.request(method, f"{URL}/{uuid4()}{path}", **body), 404, "not-found")


async def test_the_delivery_of_another_webhook_is_404(client, problem):
    mine, other = [await register(client, url=f"{HOOK}{name}") for name in "ab"]
    delivery = (await client.post(f"{URL}/{other['id']}/test")).json()

    path = f"{URL}/{mine['id']}/deliveries/{delivery['id']}/retry"

    problem(await client.post(path), 404, "not-found")


# Events


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
    engine = create_engine(own_database_url)
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


async def test_twenty_registrations_of_one_url_at_once_make_one(
    app, client, own_database_url, settings
):
    engine = create_async_engine(own_database_url)
    connect(app, async_sessions(engine))

    responses = await asyncio.gather(*(client.post(URL, json={"url": HOOK}) for _ in range(20)))

    assert sorted(response.status_code for response in responses) == [201] + [409] * 19
    await engine.dispose()


async def test_figures_count_what_waits_and_what_was_given_up(client, sessions):
    webhook = await register(client)
    for _ in range(3):
        await client.post(f"{URL}/{webhook['id']}/test")
    async with sessions.begin() as session:
        (first, second, _) = (await session.scalars(select(WebhookDelivery))).all()
        first.status, first.finished_at = DeliveryStatus.DEAD, factories.NOW
        second.status, second.finished_at = DeliveryStatus.DELIVERED, factories.NOW

    figures = (await client.get("/v1/admin/metrics")).json()
    exposition = (await client.get("/metrics")).text

    assert figures["webhook_deliveries"] == {"waiting": 1, "dead": 1}
    assert 'lethe_webhook_deliveries{status="waiting"} 1.0' in exposition
    assert 'lethe_webhook_deliveries{status="dead"} 1.0' in exposition
    assert webhook["id"] not in exposition


def test_a_disabled_endpoint_has_a_reason(sync_sessions):
    with sync_sessions() as session:
        session.add(WebhookEndpoint(url=HOOK, secret="s", status=WebhookStatus.DISABLED))
        with pytest.raises(Exception, match="reason_iff_disabled"):
            session.flush()
