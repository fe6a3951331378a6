"""Several senders, endpoints and messages at once, and a sender that dies."""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import create_engine, select, text
from sqlalchemy.exc import OperationalError

from devstack import local
from domain import outbox
from domain.states import DeliveryFailure, DeliveryStatus, WebhookStatus
from domain.tables import WebhookEndpoint
from tests.receivers import OK
from tests.waiting import wait_until
from worker.delivery import egress, webhooks
from worker.delivery.webhooks import Sent


def test_two_senders_at_once_send_once(deliver, serve, hook, rows):
    server = serve()
    hook(server, tests=40)

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(lambda _: deliver(), range(2)))

    assert len(server.ids) == len(set(server.ids)) == 40
    assert {row.attempt for row in rows()} == {1}
    assert {row.status for row in rows()} == {DeliveryStatus.DELIVERED}


def test_an_endpoint_is_sent_a_few_at_once(deliver, serve, hook):
    at_once, most, lock = 0, 0, threading.Lock()

    def slowly(request: Any) -> None:
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        time.sleep(0.05)
        with lock:
            at_once -= 1
        OK(request)

    server = serve(slowly)
    hook(server, tests=20)

    deliver()

    assert len(server.received) == 20
    assert most == webhooks.AT_ONCE


def test_a_slow_endpoint_holds_up_no_other(deliver, serve, hook, sessions, monkeypatch):
    monkeypatch.setattr(webhooks, "LOOK_S", 0.2)
    slow, quick = serve(), serve()
    slow.answer = lambda _: slow.stopping.wait(30)
    hook(slow, tests=webhooks.AT_ONCE + 1)
    endpoint = hook(quick, tests=20)

    with ThreadPoolExecutor(1) as thread:
        sending = thread.submit(deliver)
        wait_for(lambda: len(quick.received) == 20)
        assert len(slow.received) == webhooks.AT_ONCE
        with sessions.begin() as session:
            outbox.announce_test(session, endpoint.id)
        wait_for(lambda: len(quick.received) == 21)
        assert not sending.done()
        slow.stopping.set()


def test_after_its_time_a_call_begins_nothing_more(deliver, serve, hook, rows, monkeypatch):
    monkeypatch.setattr(webhooks, "ROUND_S", 1)
    server = serve()
    server.answer = lambda request: (time.sleep(0.2), OK(request))
    hook(server, tests=100)

    took = deliver()

    assert took < 10
    assert 0 < len(server.received) < 100
    untouched = [row for row in rows() if row.attempt == 0]
    assert len(untouched) == 100 - len(server.received)


def test_a_process_that_is_to_end_begins_nothing_more(sessions, settings, serve, hook):
    server = serve()
    hook(server)
    stop = threading.Event()
    stop.set()

    with ThreadPoolExecutor(1) as thread:
        thread.submit(webhooks.deliver, sessions, settings, stop=stop).result()

    assert server.received == []


def wait_for(condition: Callable[[], bool]) -> None:
    """Shorter than one message may take."""
    wait_until(condition, within_s=egress.TIME_CAP_S * 0.6)


def test_a_sender_killed_before_it_stored_is_followed_with_the_same_id(
    deliver, serve, hook, row, settings, make_due
):
    code = (
        "from domain.database import sync_engine, sync_sessions; "
        "from domain.settings import WorkerSettings; settings = WorkerSettings(); "
        "from worker.delivery import webhooks; "
        "webhooks.deliver(sync_sessions(sync_engine(settings.database_url)), settings)"
    )
    environment = {
        "LETHE_DATABASE_URL": settings.database_url.get_secret_value(),
        "LETHE_BROKER_URL": "redis://unused",
        "LETHE_STORE": str(settings.store),
        "LETHE_WEBHOOK_DEVELOPMENT": "true",
    }
    server = serve()

    def kill(request: Any) -> None:
        sender.kill()
        sender.wait()
        OK(request)

    server.answer = kill
    hook(server)
    sender = subprocess.Popen([sys.executable, "-c", code], cwd=local.REPOSITORY, env=environment)
    assert sender.wait(30) == -signal.SIGKILL
    assert (row().status, row().attempt) == (DeliveryStatus.WAITING, 1)
    server.answer = OK

    deliver()
    assert len(server.received) == 1  # its lease runs on
    make_due()
    deliver()

    assert server.ids == [str(row().id)] * 2
    assert (row().status, row().attempt) == (DeliveryStatus.DELIVERED, 2)


def test_an_outcome_of_an_attempt_that_was_overtaken_is_not_stored(sessions, hook, row, make_due):
    endpoint = hook("https://hooks.example/")
    (late,) = webhooks.claim(sessions, endpoint.id)
    assert webhooks.claim(sessions, endpoint.id) == []
    make_due()
    (second,) = webhooks.claim(sessions, endpoint.id)

    webhooks.store(sessions, late, Sent(410, DeliveryFailure.GONE))
    assert (row().status, row().attempt) == (DeliveryStatus.WAITING, 2)
    webhooks.store(sessions, second, Sent(200, None))
    webhooks.store(sessions, second, Sent(500, DeliveryFailure.STATUS))

    assert (row().status, row().response_status) == (DeliveryStatus.DELIVERED, 200)
    with sessions.begin() as session:
        assert session.scalar(select(WebhookEndpoint.status)) is WebhookStatus.ENABLED


def test_what_is_just_being_told_to_an_endpoint_that_is_gone_is_given_up_too(sessions, hook, rows):
    endpoint = hook("https://hooks.example/")
    (message,) = webhooks.claim(sessions, endpoint.id)

    with ThreadPoolExecutor(1) as thread, sessions() as telling:
        telling.scalars(
            select(WebhookEndpoint).with_for_update(read=True, key_share=True)
        ).one()  # as `outbox.announce` does
        outbox.announce_test(telling, endpoint.id)
        gone = Sent(410, DeliveryFailure.GONE)
        storing = thread.submit(webhooks.store, sessions, message, gone)
        time.sleep(0.3)
        assert not storing.done()
        telling.commit()
        storing.result()

    assert [row.status for row in rows()] == [DeliveryStatus.DEAD] * 2


def test_a_lease_outlasts_any_message():
    assert timedelta(seconds=egress.TIME_CAP_S) * 2 < webhooks.LEASE


def test_without_postgres_the_call_fails_and_nothing_is_left_running(
    deliver, serve, hook, url, row, make_due
):
    server = serve()
    other = create_engine(url)

    def cut(request: Any) -> None:
        with other.connect() as connection:
            connection.execute(
                text(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
            )
        OK(request)

    server.answer = cut
    hook(server)

    with pytest.raises(OperationalError):
        deliver()

    server.answer = OK
    make_due()
    deliver()
    assert server.ids == [str(row().id)] * 2
    assert row().status is DeliveryStatus.DELIVERED
    other.dispose()
