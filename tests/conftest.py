"""A real Postgres built by the migrations; every test rolled back."""

import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any
from unittest.mock import create_autospec
from uuid import uuid4

import httpx2
import psycopg
import pytest
import structlog
from alembic import command
from alembic.config import Config
from celery import Celery
from fastapi import FastAPI
from psycopg import sql
from sqlalchemy import NullPool, text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import (
    AsyncConnection,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import Session, sessionmaker
from xdist.scheduler import LoadFileScheduling, LoadScopeScheduling

from devstack import local, roles
from domain.settings import ApiSettings
from service.app import create_app, watch
from tests import acting, factories
from tests.acting import become

KEY = "a-key-for-tests-only"
OWN = ("test_demo.py", "test_restore.py")
"""End-to-end tests with stacks of their own."""

EVENTS_AT_ONCE = text("SET CONSTRAINTS appended_to_log IMMEDIATE")
"""What is never committed gets no position in the log at the commit."""

# Of torch, here and in the processes that tests start: for tensors as small as theirs more threads
# only wait for each other. It reads this when it is first imported.
os.environ["OMP_NUM_THREADS"] = "1"


def pytest_configure(config: pytest.Config) -> None:
    """Give every run a temporary directory of its own.

    In the one that pytest would share, the next run to begin takes the rights of all users but its
    own away, and so a running Postgres from its files: as root's it runs under another user.
    """
    if config.option.basetemp is None:  # a process of xdist gets a part of its parent's
        config.option.basetemp = tempfile.mkdtemp(prefix="lethe-tests-")
        config.add_cleanup(partial(shutil.rmtree, config.option.basetemp, ignore_errors=True))


class OneStack(LoadFileScheduling):  # type: ignore[misc]  # xdist is not typed
    """Run one file in one process, and all files that share the end-to-end tests' stack in one."""

    def _split_scope(self, nodeid: str) -> str:
        file = Path(super()._split_scope(nodeid))
        return str(file.parent if file.match("end_to_end/*") and file.name not in OWN else file)


@pytest.hookimpl(optionalhook=True)  # xdist may be off
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    return OneStack(config, log)


@pytest.fixture(scope="session", autouse=True)
def _plain_logs() -> None:
    """Structlog's default draws a traceback with all local variables: that takes half a minute."""
    structlog.configure(
        processors=[structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[local.Servers]:
    """A real Postgres and a real Valkey, for the whole run.

    Postgres does not wait for the disk: what a killed server has written, the next one reads from
    the system's memory all the same. Nor does it vacuum: its workers would go from one to the next
    of hundreds of databases that live for a second.
    """
    with local.servers(tmp_path_factory.mktemp("servers")) as running:
        with psycopg.connect(running.superuser_url, autocommit=True) as connection:
            for setting in (b"fsync", b"full_page_writes", b"autovacuum", b"jit"):
                connection.execute(b"ALTER SYSTEM SET " + setting + b" = off")
            connection.execute("SELECT pg_reload_conf()")
        yield running


@pytest.fixture(scope="session")
def new_database(servers: local.Servers) -> Callable[..., str]:
    """Make a database, empty or a copy of another, and give its URL for its owner."""

    def create(template: str | None = None) -> str:
        name = f"test_{uuid4().hex}"
        original = make_url(template).database if template else "template1"
        assert original
        made = sql.SQL("CREATE DATABASE {} TEMPLATE {} OWNER {}")
        names = [sql.Identifier(each) for each in (name, original, roles.OWNER)]
        closed = sql.SQL("REVOKE TEMPORARY ON DATABASE {} FROM PUBLIC")  # this is not copied
        with psycopg.connect(servers.superuser_url, autocommit=True) as connection:
            connection.execute(made.format(*names))
            connection.execute(closed.format(names[0]))
        url = make_url(servers.owner_url).set(drivername="postgresql+psycopg", database=name)
        return url.render_as_string(hide_password=False)

    return create


@pytest.fixture(scope="session")
def alembic() -> Callable[..., None]:
    """Run one of Alembic's commands on the database with this URL."""

    def run(name: str, url: str, *args: Any) -> None:
        before = os.environ.get("LETHE_DATABASE_URL")
        os.environ["LETHE_DATABASE_URL"] = url
        try:
            getattr(command, name)(Config(local.REPOSITORY / "alembic.ini"), *args)
        finally:
            del os.environ["LETHE_DATABASE_URL"]
            if before is not None:
                os.environ["LETHE_DATABASE_URL"] = before

    return run


@pytest.fixture(scope="session")
def migrated_template(new_database: Callable[..., str], alembic: Callable[..., None]) -> str:
    """A migrated database that stays empty; to be copied."""
    url = new_database()
    alembic("upgrade", url, "head")
    return url


@pytest.fixture(scope="session")
def database_url(new_database: Callable[..., str], migrated_template: str) -> str:
    """A migrated database, in which nothing is ever committed."""
    return roles.as_role(new_database(migrated_template), roles.ROLES["api"])


@pytest.fixture
def own_database_url(new_database: Callable[..., str], migrated_template: str) -> str:
    """A migrated database for this test alone, which may commit, for either of the service's
    roles: what only one of them may do is tested with `sessions` and `sync_sessions`."""
    return roles.as_role(new_database(migrated_template), roles.EITHER)


@pytest.fixture
def owner_url(own_database_url: str) -> str:
    """The same database as its owner, who may do anything to it."""
    return roles.as_role(own_database_url, roles.OWNER)


@pytest.fixture
async def sessions(database_url: str) -> AsyncIterator[async_sessionmaker[AsyncSession]]:
    """Sessions that may commit; all of it is undone when the test ends.

    The test is the owner of the tables; during a request (`speaking_to`), the API has its own role.
    """
    url = roles.as_role(database_url, roles.SUPERUSER)  # who may become anybody
    engine = create_async_engine(url, poolclass=NullPool)
    async with engine.connect() as connection:
        outer = await connection.begin()
        await connection.execute(become(roles.OWNER))
        await connection.execute(EVENTS_AT_ONCE)
        yield async_sessionmaker(
            connection, expire_on_commit=False, join_transaction_mode="create_savepoint"
        )
        await outer.rollback()
    await engine.dispose()


@pytest.fixture
def sync_sessions(database_url: str) -> Iterator[sessionmaker[Session]]:
    """The same for synchronous code; neither sees what the other has written.

    What worker and API execute, they execute under their roles; what a test does itself, as the
    owner of the tables.
    """
    engine = acting.engine(database_url, poolclass=NullPool)
    with engine.connect() as connection:
        outer = connection.begin()
        connection.execute(EVENTS_AT_ONCE)
        yield sessionmaker(
            connection, expire_on_commit=False, join_transaction_mode="create_savepoint"
        )
        outer.rollback()
    engine.dispose()


@pytest.fixture
def queue() -> Any:
    """The broker, faked at the border: it takes every message and does nothing."""
    return create_autospec(Celery, instance=True)


@pytest.fixture
def settings(database_url: str, servers: local.Servers, tmp_path: Path) -> ApiSettings:
    return ApiSettings(
        database_url=database_url,
        broker_url=servers.broker_url,
        admin_key=KEY,
        store=tmp_path / "store",
        data_roots=[tmp_path],
        factories=["nets.cnn:build", "zoo:*"],
    )


@pytest.fixture(scope="session")
def built_app(database_url: str, servers: local.Servers) -> FastAPI:
    """The API, built once: every new one computes its routes again."""
    return create_app(
        ApiSettings(
            database_url=database_url,
            broker_url=servers.broker_url,
            admin_key=KEY,
            store=Path("nowhere"),
        )
    )


@pytest.fixture
def app(
    built_app: FastAPI,
    settings: ApiSettings,
    sessions: async_sessionmaker[AsyncSession],
    queue: Celery,
) -> FastAPI:
    """The API on this test's sessions, with the broker faked."""
    connect(built_app, sessions)
    built_app.state.queue, built_app.state.settings = queue, settings
    built_app.dependency_overrides = {}
    built_app.state.failed._windows.clear()
    return built_app


def connect(app: FastAPI, sessions: async_sessionmaker[AsyncSession]) -> None:
    """Have the API use these sessions, and transactions on what they are bound to."""
    bind = sessions.kw["bind"]

    @asynccontextmanager
    async def within() -> AsyncIterator[AsyncConnection]:
        async with bind.begin_nested():
            yield bind

    app.state.sessions = sessions
    app.state.transactions = within if isinstance(bind, AsyncConnection) else bind.begin
    watch(app, sessions)
    for kept in (app.state.figures, app.state.exposition, app.state.readiness):
        kept.fresh_s = 0  # tests look at what they stored


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx2.AsyncClient]:
    """Speaks to the API with the key."""
    async with speaking_to(app) as client:
        yield client


def speaking_to(app: FastAPI) -> httpx2.AsyncClient:
    async def in_its_role(scope: Any, receive: Any, send: Any) -> None:
        sessions = getattr(app.state, "sessions", None)  # none before the app has started
        bind = sessions.kw["bind"] if sessions else None
        if not isinstance(bind, AsyncConnection):
            return await app(scope, receive, send)
        await bind.execute(become(roles.ROLES["api"]))
        try:
            await app(scope, receive, send)
        finally:
            await bind.execute(become(roles.OWNER))

    transport = httpx2.ASGITransport(in_its_role, raise_app_exceptions=False)
    return httpx2.AsyncClient(
        transport=transport, base_url="http://lethe", headers={"Authorization": f"Bearer {KEY}"}
    )


@pytest.fixture
def store(sessions: async_sessionmaker[AsyncSession]) -> Callable[..., Any]:
    """Put rows into the database, in this order."""

    async def put(*rows: Any) -> None:
        async with sessions.begin() as session:
            for _, same in groupby(rows, type):
                session.add_all(same)
                await session.flush()

    return put


@pytest.fixture
async def model(store: Callable[..., Any]) -> factories.Model:
    """A ready model: `t0`…`t9` are its training samples, `h0` and `h1` its hold-out."""
    dataset = factories.dataset()
    model = factories.model(dataset)
    job = factories.job(model_id=model.id, kind=factories.JobKind.REGISTER_MODEL, finished=True)
    await store(dataset, model, job, factories.version(model, job), *factories.samples(dataset))
    return model
