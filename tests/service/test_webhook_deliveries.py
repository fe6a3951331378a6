"""The routes of a webhook's deliveries: tests, lists, retries."""

import json
from datetime import datetime
from unittest.mock import ANY
from uuid import UUID

from sqlalchemy import func, select, update

from domain import doorbell
from domain.states import DeliveryFailure, DeliveryStatus
from domain.tables import WebhookDelivery
from tests import factories
from tests.service.hooks import HOOK, URL, deliveries, register


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


async def test_the_delivery_of_another_webhook_is_404(client, problem):
    mine, other = [await register(client, url=f"{HOOK}{name}") for name in "ab"]
    delivery = (await client.post(f"{URL}/{other['id']}/test")).json()

    path = f"{URL}/{mine['id']}/deliveries/{delivery['id']}/retry"

    problem(await client.post(path), 404, "not-found")


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
