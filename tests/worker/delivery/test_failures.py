"""Failing deliveries: retried later, given up in the end, and never waited for long."""

import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select, update

from devstack import local
from domain.states import DeliveryFailure, DeliveryStatus, WebhookStatus
from domain.tables import AuditEvent, WebhookDelivery, WebhookEndpoint
from tests.receivers import OK, status
from worker.delivery import egress, webhooks
from worker.delivery.webhooks import DELAYS


def test_what_fails_is_sent_again_later_with_the_same_id(deliver, serve, hook, row, make_due):
    server = serve(status(503))
    hook(server)

    deliver()

    assert (row().status, row().failure) == (DeliveryStatus.WAITING, DeliveryFailure.STATUS)
    assert row().response_status == 503
    wait = row().next_attempt_at - datetime.now(UTC)
    assert timedelta() < wait <= DELAYS[0] * (1 + webhooks.JITTER)
    deliver()
    assert len(server.received) == 1
    server.answer = OK
    make_due()
    deliver()
    assert len(set(server.ids)) == 1
    assert (row().status, row().attempt) == (DeliveryStatus.DELIVERED, 2)
    assert row().failure is None


def test_after_ten_attempts_over_days_it_is_given_up(deliver, serve, hook, row, make_due):
    server = serve(status(500))
    hook(server)

    for _ in range(11):
        deliver()
        make_due()

    assert len(server.received) == 10
    assert (row().status, row().attempt) == (DeliveryStatus.DEAD, 10)
    assert row().finished_at is not None
    assert sum(DELAYS, timedelta()) > timedelta(days=3)


def test_what_was_given_up_can_be_sent_once_more(deliver, serve, hook, row, sessions):
    server = serve()
    hook(server)
    with sessions.begin() as session:
        session.execute(update(WebhookDelivery).values(attempt=10))

    deliver()

    assert (row().status, row().attempt) == (DeliveryStatus.DELIVERED, 11)


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_redirects_are_not_followed(deliver, serve, hook, row, code):
    elsewhere = serve()
    server = serve(status(code, Location=f"http://127.0.0.1:{elsewhere.port}/"))
    hook(server)

    deliver()

    assert elsewhere.received == []
    assert (row().failure, row().response_status) == (DeliveryFailure.REDIRECT, code)
    assert row().status is DeliveryStatus.WAITING


def test_410_disables_the_endpoint_and_gives_up_what_waits(deliver, serve, hook, rows, sessions):
    server = serve(status(410))
    endpoint = hook(server, tests=10)

    deliver()

    assert len(server.received) < 10
    assert {row.status for row in rows()} == {DeliveryStatus.DEAD}
    assert {row.failure for row in rows()} == {DeliveryFailure.GONE}
    with sessions.begin() as session:
        stored = session.get_one(WebhookEndpoint, endpoint.id)
        assert stored.status is WebhookStatus.DISABLED
        assert "410" in stored.disabled_reason
        told = session.scalars(select(AuditEvent).filter_by(subject_id=endpoint.id)).all()
    assert [(each.event, each.actor) for each in told] == [("webhook.disabled", "worker")]


def test_a_port_that_nobody_listens_on_is_a_failed_connection(deliver, hook, row):
    hook(f"http://127.0.0.1:{local.free_port()}/")

    deliver()

    assert (row().failure, row().response_status) == (DeliveryFailure.CONNECTION, None)


@pytest.mark.parametrize(
    "answer", [b"", b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\n" + b"x" * 10**6]
)
def test_an_answer_that_is_not_http_is_a_failed_connection(deliver, serve, hook, row, answer):
    hook(serve(lambda request: request.wfile.write(answer)))

    deliver()

    assert row().failure is DeliveryFailure.CONNECTION


def drip(request: Any, *, head: bytes) -> None:
    """Answer one byte at a time, without end."""
    request.wfile.write(head)
    for _ in range(1000):
        request.wfile.write(b"x")
        time.sleep(0.02)


def test_a_slow_drip_of_headers_does_not_exceed_the_cap(deliver, serve, hook, row, monkeypatch):
    monkeypatch.setattr(egress, "TIME_CAP_S", 1)
    hook(serve(lambda request: drip(request, head=b"HTTP/1.1 200 OK\r\nX: ")))

    took = deliver()

    assert took < 10
    assert row().failure is DeliveryFailure.TIMEOUT


def test_a_slow_drip_of_the_body_is_not_waited_for(deliver, serve, hook, row):
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"
    hook(serve(lambda request: drip(request, head=head)))

    took = deliver()

    assert took < 10
    assert (row().status, row().response_status) == (DeliveryStatus.DELIVERED, 200)


def test_a_huge_body_is_not_read(deliver, serve, hook, row):
    sent = 0

    def flood(request: Any) -> None:
        nonlocal sent
        request.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        for _ in range(1000):
            sent += request.wfile.write(b"x" * 10**6)

    hook(serve(flood))

    deliver()

    assert row().status is DeliveryStatus.DELIVERED
    assert sent < 50 * 10**6  # what fits into the sockets' buffers


def test_a_server_that_never_answers_costs_no_more_than_the_cap(
    deliver, serve, hook, row, monkeypatch
):
    monkeypatch.setattr(egress, "TIME_CAP_S", 0.5)
    server = serve()
    server.answer = lambda _: server.stopping.wait(30)
    hook(server)

    took = deliver()

    assert took < 10
    assert row().failure is DeliveryFailure.TIMEOUT


def test_a_resolver_that_never_answers_costs_no_more_than_the_cap(
    deliver, hook, row, names, monkeypatch
):
    monkeypatch.setattr(egress, "TIME_CAP_S", 0.5)
    released = threading.Event()
    names["hooks.example"] = lambda: [released.wait(30), "127.0.0.1"][1:]
    hook("https://hooks.example/")

    took = deliver()
    released.set()

    assert took < 10
    assert row().failure is DeliveryFailure.TIMEOUT
