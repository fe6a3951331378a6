"""Sending to webhooks: real servers, real Postgres; only name resolution is faked."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpcore2
import pytest
from sqlalchemy import create_engine, delete, func, select, text, update
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session, sessionmaker
from standardwebhooks import Webhook, WebhookVerificationError

from devstack import local
from domain import outbox
from domain.settings import WorkerSettings
from domain.states import DeliveryFailure, DeliveryStatus, WebhookStatus
from domain.tables import AuditEvent, WebhookDelivery, WebhookEndpoint
from tests.receivers import CERTIFICATE, Receiver, receiver, status
from worker.delivery import egress, webhooks
from worker.delivery.webhooks import DELAYS, Message, Outcome

OK = status(204)


def new_secret() -> str:
    return f"whsec_{b64encode(os.urandom(32)).decode()}"


@pytest.fixture(scope="module")
def url(new_database: Callable[..., str], migrated_template: str) -> str:
    return new_database(migrated_template)


@pytest.fixture
def sessions(url: str) -> Iterator[sessionmaker[Session]]:
    """Sessions of a database whose webhooks are this test's alone."""
    engine = create_engine(url)
    sessions = sessionmaker(engine, expire_on_commit=False)
    with sessions.begin() as session:
        session.execute(delete(WebhookEndpoint))
    yield sessions
    engine.dispose()


@pytest.fixture
def settings(url: str, tmp_path: Path) -> WorkerSettings:
    """While developing: the servers of these tests listen on this machine."""
    return WorkerSettings(
        database_url=url, broker_url="redis://unused", store=tmp_path, webhook_development=True
    )


@pytest.fixture
def deliver(sessions: sessionmaker[Session], settings: WorkerSettings) -> Callable[..., float]:
    """Send what is due, in a thread as the worker does; how many seconds that took."""

    def run(**changes: Any) -> float:
        started = time.monotonic()
        with ThreadPoolExecutor(1) as thread:
            changed = settings.model_copy(update=changes)
            thread.submit(webhooks.deliver, sessions, changed).result()
        return time.monotonic() - started

    return run


@pytest.fixture
def serve() -> Iterator[Callable[..., Receiver]]:
    """Start a server."""
    with ExitStack() as servers:
        yield lambda answer=OK, **how: servers.enter_context(receiver(answer, **how))


@pytest.fixture
def hook(sessions: sessionmaker[Session]) -> Callable[..., WebhookEndpoint]:
    """Register an endpoint, and queue tests for it."""

    def register(url: str | Receiver, tests: int = 1, **columns: Any) -> WebhookEndpoint:
        if isinstance(url, Receiver):
            url = f"http://127.0.0.1:{url.port}/hook?token=SECRET"
        with sessions.begin() as session:
            endpoint = WebhookEndpoint(**{"url": url, "secret": new_secret()} | columns)
            session.add(endpoint)
            session.flush()
            for _ in range(tests):
                outbox.announce_test(session, endpoint.id)
        return endpoint

    return register


@pytest.fixture
def rows(sessions: sessionmaker[Session]) -> Callable[[], list[WebhookDelivery]]:
    def read() -> list[WebhookDelivery]:
        with sessions.begin() as session:
            return list(session.scalars(select(WebhookDelivery).order_by(WebhookDelivery.id)))

    return read


@pytest.fixture
def row(rows: Callable[[], list[WebhookDelivery]]) -> Callable[[], WebhookDelivery]:
    def read() -> WebhookDelivery:
        (only,) = rows()
        return only

    return read


@pytest.fixture
def make_due(sessions: sessionmaker[Session]) -> Callable[[], None]:
    """Let the time of waiting pass."""

    def pass_by() -> None:
        with sessions.begin() as session:
            session.execute(update(WebhookDelivery).values(next_attempt_at=func.now()))

    return pass_by


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, Callable[[], list[str]]]:
    """What names stand for, asked anew each time; others are resolved as ever."""
    known: dict[str, Callable[[], list[str]]] = {}
    real = socket.getaddrinfo

    def fake(host: str, port: int, *args: Any, **kwargs: Any) -> Any:
        if host not in known:
            return real(host, port, *args, **kwargs)
        return [entry for address in known[host]() for entry in real(address, port, **kwargs)]

    monkeypatch.setattr(socket, "getaddrinfo", fake)
    return known


@pytest.fixture
def connected(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """To which addresses connections went; all of them end on this machine instead."""
    addresses: list[str] = []
    real = httpcore2.AnyIOBackend.connect_tcp

    async def fake(self: Any, host: str, *args: Any, **kwargs: Any) -> Any:
        addresses.append(host)
        return await real(self, "127.0.0.1", *args, **kwargs)

    monkeypatch.setattr(httpcore2.AnyIOBackend, "connect_tcp", fake)
    return addresses


@pytest.fixture
def trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The certificate of the TLS servers here is trusted."""
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))


# Sending


def test_a_delivery_arrives_signed_and_is_stored_as_delivered(deliver, serve, hook, row):
    server = serve()
    endpoint = hook(server)

    deliver()

    ((headers, body),) = server.received
    assert body == row().body
    assert Webhook(endpoint.secret).verify(body, headers)["type"] == "lethe.webhook.test"
    assert headers["webhook-id"] == str(row().id)
    assert headers["content-type"] == "application/cloudevents+json; charset=utf-8"
    assert headers["host"] == f"127.0.0.1:{server.port}"
    assert (row().status, row().attempt) == (DeliveryStatus.DELIVERED, 1)
    assert (row().response_status, row().failure) == (204, None)
    assert row().finished_at is not None


def test_a_forged_body_does_not_verify(deliver, serve, hook):
    server = serve()
    endpoint = hook(server)

    deliver()

    ((headers, body),) = server.received
    with pytest.raises(WebhookVerificationError):
        Webhook(endpoint.secret).verify(body.replace("test", "tset"), headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(new_secret()).verify(body, headers)


def test_after_a_rotation_both_secrets_verify(deliver, serve, hook):
    server = serve()
    until = datetime.now(UTC) + timedelta(hours=1)
    endpoint = hook(server, previous_secret=new_secret(), previous_secret_until=until)

    deliver()

    ((headers, body),) = server.received
    for secret in (endpoint.secret, endpoint.previous_secret):
        Webhook(secret).verify(body, headers)
    assert len(headers["webhook-signature"].split(" ")) == 2


def test_a_secret_that_ran_out_signs_no_more(deliver, serve, hook):
    server = serve()
    until = datetime.now(UTC) - timedelta(seconds=1)
    endpoint = hook(server, previous_secret=new_secret(), previous_secret_until=until)

    deliver()

    ((headers, body),) = server.received
    Webhook(endpoint.secret).verify(body, headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(endpoint.previous_secret).verify(body, headers)


def test_a_disabled_endpoint_is_sent_nothing(deliver, serve, hook, row):
    server = serve()
    hook(server, status=WebhookStatus.DISABLED, disabled_reason="for the test")

    deliver()

    assert server.received == []
    assert (row().status, row().attempt) == (DeliveryStatus.WAITING, 0)


def test_neither_urls_nor_secrets_are_logged(deliver, serve, hook, capsys):
    server = serve()
    endpoint = hook(server)

    deliver()

    logged = capsys.readouterr().out
    assert "webhook.sent" in logged
    assert "SECRET" not in logged
    assert endpoint.secret not in logged


def test_proxies_of_the_environment_are_not_used(deliver, serve, hook, row, monkeypatch):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{local.free_port()}")
        monkeypatch.setenv(name.lower(), f"http://127.0.0.1:{local.free_port()}")
    server = serve()
    hook(server)

    deliver()

    assert row().status is DeliveryStatus.DELIVERED


# Failures


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


# Where to


def test_a_name_without_an_address_is_a_failed_resolution(deliver, hook, row, names):
    def unknown() -> list[str]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    names["hooks.example"] = unknown
    hook("https://hooks.example/")

    deliver()

    assert row().failure is DeliveryFailure.DNS


@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.1"],
        ["10.0.0.1"],
        ["169.254.169.254"],
        ["::1"],
        ["::ffff:127.0.0.1"],
        ["8.8.8.8", "127.0.0.1"],
        ["8.8.8.8", "fe80::1"],
    ],
)
def test_a_name_that_stands_for_an_address_inside_is_not_connected_to(
    deliver, hook, row, names, connected, addresses
):
    names["hooks.example"] = lambda: addresses
    hook("https://hooks.example/")

    deliver(webhook_development=False)

    assert connected == []
    assert (row().status, row().failure) == (
        DeliveryStatus.WAITING,
        DeliveryFailure.ADDRESS_REFUSED,
    )


def test_a_name_that_changes_between_check_and_connect_is_connected_to_as_checked(
    deliver, serve, hook, row, names, connected, trusted
):
    server = serve(tls=True)
    answers = iter([["8.8.8.8"], ["127.0.0.1"]])
    names["hooks.example"] = lambda: next(answers)
    hook(f"https://hooks.example:{server.port}/")

    deliver(webhook_development=False)

    assert connected == ["8.8.8.8"]
    assert row().status is DeliveryStatus.DELIVERED
    assert next(answers) == ["127.0.0.1"]  # it was never asked for


def test_an_address_that_does_not_answer_is_followed_by_the_next(deliver, serve, hook, row, names):
    server = serve()
    names["hooks.example"] = lambda: ["127.0.0.2", "127.0.0.1"]
    hook(f"http://hooks.example:{server.port}/")

    deliver()

    assert row().status is DeliveryStatus.DELIVERED


def test_an_endpoint_of_development_is_refused_in_production(deliver, serve, hook, row):
    server = serve()
    hook(server)

    deliver(webhook_development=False)

    assert server.received == []
    assert row().failure is DeliveryFailure.ADDRESS_REFUSED


def test_a_certificate_of_the_name_is_accepted(deliver, serve, hook, row, names, trusted):
    server = serve(tls=True)
    names["hooks.example"] = lambda: ["127.0.0.1"]
    hook(f"https://hooks.example:{server.port}/")

    deliver()

    assert server.received[0][0]["host"] == f"hooks.example:{server.port}"
    assert row().status is DeliveryStatus.DELIVERED


def test_a_certificate_of_another_name_is_refused(deliver, serve, hook, row, names, trusted):
    server = serve(tls=True)
    names["other.example"] = lambda: ["127.0.0.1"]
    hook(f"https://other.example:{server.port}/")

    deliver()

    assert server.received == []
    assert row().failure is DeliveryFailure.TLS


def test_a_certificate_that_nobody_vouches_for_is_refused(deliver, serve, hook, row, names):
    server = serve(tls=True)
    names["hooks.example"] = lambda: ["127.0.0.1"]
    hook(f"https://hooks.example:{server.port}/")

    deliver()

    assert server.received == []
    assert row().failure is DeliveryFailure.TLS


# Several at once


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
    deadline = time.monotonic() + egress.TIME_CAP_S * 0.6
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_sender_killed_before_it_stored_is_followed_with_the_same_id(
    deliver, serve, hook, row, settings, make_due
):
    code = (
        "from worker import webhooks; from domain.database import sync_engine, sync_sessions; "
        "from domain.settings import WorkerSettings; settings = WorkerSettings(); "
        "webhooks.deliver(sync_sessions(sync_engine(settings.database_url)), settings)"
    )
    environment = {
        "LETHE_DATABASE_URL": settings.database_url,
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

    webhooks.store(sessions, late, Outcome(410, DeliveryFailure.GONE))
    assert (row().status, row().attempt) == (DeliveryStatus.WAITING, 2)
    webhooks.store(sessions, second, Outcome(200, None))
    webhooks.store(sessions, second, Outcome(500, DeliveryFailure.STATUS))

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
        gone = Outcome(410, DeliveryFailure.GONE)
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


# Retention


def test_what_ended_long_ago_is_deleted(sessions, hook, rows):
    hook("https://hooks.example/", tests=4, previous_secret="old",
         previous_secret_until=datetime.now(UTC) - timedelta(days=1))  # fmt: skip
    ends = [(DeliveryStatus.DELIVERED, 31), (DeliveryStatus.DEAD, 31), (DeliveryStatus.DEAD, 29)]
    with sessions.begin() as session:
        for delivery, (ended, days) in zip(
            session.scalars(select(WebhookDelivery)), ends, strict=False
        ):
            delivery.status = ended
            delivery.finished_at = datetime.now(UTC) - timedelta(days=days)

    with sessions.begin() as session:
        webhooks.forget_old(session)

    assert sorted(row.status for row in rows()) == [DeliveryStatus.DEAD, DeliveryStatus.WAITING]
    with sessions.begin() as session:
        assert session.scalar(select(WebhookEndpoint.previous_secret)) is None


def test_a_timestamp_is_that_of_the_attempt():
    message = Message(*(None,) * 2, 1, "https://hooks.example/", "{}", (new_secret(),))
    at = datetime(2026, 1, 1, 12, tzinfo=UTC)

    assert webhooks.signed(message, at)["webhook-timestamp"] == str(int(at.timestamp()))
