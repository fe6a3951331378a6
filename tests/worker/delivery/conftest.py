"""Sending to webhooks: real servers, real Postgres; only name resolution is faked."""

import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpcore2
import pytest
from sqlalchemy import create_engine, delete, func, select, update
from sqlalchemy.orm import Session, sessionmaker

from domain import outbox
from domain.settings import WorkerSettings
from domain.tables import WebhookDelivery, WebhookEndpoint
from tests.receivers import CERTIFICATE, OK, Receiver, new_secret, receiver
from worker.delivery import webhooks


@pytest.fixture(scope="session")
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
