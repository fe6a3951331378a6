"""The routes of webhooks: registration, changes, secrets."""

import asyncio
from base64 import b64decode
from datetime import datetime, timedelta
from unittest.mock import ANY
from uuid import UUID, uuid4

import pytest
from sqlalchemy import func, select

from domain.database import async_sessions
from domain.settings import ApiSettings
from domain.states import DeliveryStatus, WebhookStatus
from domain.tables import AuditEvent, WebhookEndpoint
from tests import acting
from tests.conftest import connect
from tests.service.hooks import HOOK, URL, deliveries, register, submit


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


async def test_twenty_registrations_of_one_url_at_once_make_one(
    app, client, own_database_url, settings
):
    engine = acting.async_engine(own_database_url)
    connect(app, async_sessions(engine))

    responses = await asyncio.gather(*(client.post(URL, json={"url": HOOK}) for _ in range(20)))

    assert sorted(response.status_code for response in responses) == [201] + [409] * 19
    await engine.dispose()


def test_a_disabled_endpoint_has_a_reason(sync_sessions):
    with sync_sessions() as session:
        session.add(WebhookEndpoint(url=HOOK, secret="s", status=WebhookStatus.DISABLED))
        with pytest.raises(Exception, match="reason_iff_disabled"):
            session.flush()
