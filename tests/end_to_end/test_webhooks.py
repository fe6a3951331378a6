"""What a webhook receives while a real stack forgets."""

import json
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from standardwebhooks import Webhook

from tests.end_to_end.conftest import DONE, Client
from tests.receivers import OK, Receiver, receiver
from tests.waiting import wait_until


@pytest.fixture
def server() -> Iterator[Receiver]:
    with receiver(OK) as running:
        yield running


@pytest.fixture
def webhook(client: Client, server: Receiver) -> Iterator[dict[str, Any]]:
    body = {"url": f"http://127.0.0.1:{server.port}/"}
    registered: dict[str, Any] = client.http.post("/v1/webhooks", json=body).json()
    yield registered
    client.http.delete(f"/v1/webhooks/{registered['id']}").raise_for_status()


def told(server: Receiver, secret: str, subject: str) -> list[str]:
    """The statuses that were reported of this request, in the order of their events."""
    events = [Webhook(secret).verify(body, headers) for headers, body in server.received]
    of_it = [event for event in events if event["subject"] == subject]
    return [event["data"]["status"] for event in sorted(of_it, key=lambda event: event["time"])]


def test_every_status_of_a_request_is_told_and_verifies(client, model, unnamed, server, webhook):
    ids = unnamed(20)

    where = client.request(model, ids)
    row = client.settled(where)
    assert row["status"] in DONE
    wait_until(lambda: row["status"] in told(server, webhook["secret"], row["id"]), within_s=20)

    statuses = told(server, webhook["secret"], row["id"])
    assert statuses == ["pending", "scheduled", "running", row["status"]]
    assert not any(sample_id in body for _, body in server.received for sample_id in ids)
    delivered = client.get(f"/v1/webhooks/{webhook['id']}/deliveries?status=delivered")["items"]
    assert {item["id"] for item in delivered} <= set(server.ids)


def test_a_test_arrives_at_once(client, server, webhook):
    delivery = client.http.post(f"/v1/webhooks/{webhook['id']}/test").json()

    wait_until(lambda: delivery["id"] in server.ids, within_s=10)

    (_, body) = server.received[server.ids.index(delivery["id"])]
    assert json.loads(body)["type"] == "lethe.webhook.test"


def test_a_receiver_that_hangs_does_not_hold_up_the_work(client, model, unnamed, server, webhook):
    server.answer = lambda _: server.stopping.wait(60)
    for _ in range(8):
        client.http.post(f"/v1/webhooks/{webhook['id']}/test").raise_for_status()
    wait_until(lambda: server.received, within_s=10)

    where = client.request(model, unnamed(5))

    client.wait(where, lambda row: row["status"] != "pending", timeout_s=15)
    assert client.settled(where)["status"] in DONE
    server.stopping.set()


def test_the_clock_of_a_house_may_end_while_a_receiver_hangs(client, server, webhook):
    server.answer = lambda _: server.stopping.wait(60)
    client.http.post(f"/v1/webhooks/{webhook['id']}/test").raise_for_status()
    wait_until(lambda: server.received, within_s=10)
    beat = client.home.processes["beat"]

    beat.terminate()
    try:
        beat.wait(30)
    except subprocess.TimeoutExpired:
        pytest.fail("it waited longer than one message may take")
    finally:
        client.home.stop("beat")
        client.home.start("beat")
        server.stopping.set()
