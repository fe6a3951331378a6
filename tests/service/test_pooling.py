"""Behind a pooler that gives each transaction another server connection."""

import asyncio
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest
from psycopg import errors
from sqlalchemy import text
from sqlalchemy.engine import make_url

from domain import jobs
from domain.database import async_engine, async_sessions, sync_engine, sync_sessions
from domain.states import JobKind, RegistrationStatus
from tests import factories
from tests.conftest import connect
from tests.poolers import pooler
from tests.service.submitting import submit


@pytest.fixture
def socket_path(servers):
    return Path(make_url(servers.owner_url).query["host"]) / ".s.PGSQL.5432"


@pytest.fixture
def pooled(socket_path, own_database_url):
    """A pooler that leaves `options` out, as docs/operators.md wants it, and the URL through it."""
    with pooler(socket_path, ignores=frozenset({b"options"})) as made:
        name = make_url(own_database_url).database
        yield made, f"postgresql://lethe_app@127.0.0.1:{made.port}/{name}"


def often(*execute):
    """psycopg prepares what it runs for the sixth time."""
    for one in execute:
        for number in range(12):
            one("SELECT %s::int", [number])


def test_the_pooler_does_to_a_session_what_pgbouncer_does(pooled):
    """Else the tests below would show nothing."""
    _, url = pooled

    with psycopg.connect(url, autocommit=True) as one, psycopg.connect(url, autocommit=True) as two:
        assert one.info.backend_pid == two.info.backend_pid < 0
        with pytest.raises((errors.DuplicatePreparedStatement, errors.InvalidSqlStatementName)):
            often(one.execute, two.execute)


def test_the_worker_works_through_it(pooled):
    made, url = pooled
    engines = [sync_engine(url) for _ in range(2)]
    for engine in engines:
        for number in range(12):
            with engine.begin() as connection:
                assert connection.scalar(text("SELECT :n + 1"), {"n": number}) == number + 1
    sessions = sync_sessions(engines[0])
    with sessions.begin() as session:
        session.add(dataset := factories.dataset(status=RegistrationStatus.PENDING, report=None))
        session.flush()
        job = jobs.queue(session, JobKind.INDEX_DATASET, actor="api", dataset_id=dataset.id)
    with sync_sessions(engines[1]).begin() as session:
        lease = timedelta(minutes=1)
        assert jobs.start(session, job.id, actor="worker", worker="w", lease=lease)
    for engine in engines:
        engine.dispose()
    assert made.transactions > 24


async def test_the_api_works_through_it(app, client, pooled, owner_url):
    """Its statements are those that psycopg would prepare."""
    _, url = pooled
    engine = async_engine(url)
    sessions = async_sessions(engine)
    dataset = factories.dataset()
    model = factories.model(dataset)
    job = factories.job(model_id=model.id, kind=JobKind.REGISTER_MODEL, finished=True)
    owner = sync_engine(owner_url)
    with sync_sessions(owner).begin() as session:
        for rows in ([dataset], [model], [job], factories.samples(dataset)):
            session.add_all(rows)
            session.flush()
    owner.dispose()
    connect(app, sessions)

    answers = await asyncio.gather(*(submit(client, sample_ids=[f"t{n % 9}"]) for n in range(24)))
    ready = await client.get("/readyz")
    await engine.dispose()

    assert {answer.status_code for answer in answers} == {202}
    assert ready.json()["status"] == "ready"


async def test_one_that_refuses_our_options_is_told_of(app, client, socket_path, problem, capsys):
    with pooler(socket_path) as made:
        engine = async_engine(f"postgresql://lethe_app@127.0.0.1:{made.port}/postgres")
        connect(app, async_sessions(engine))
        body = problem(await client.get("/readyz"), 503, "unavailable")
        await engine.dispose()

    assert body["database"] == "pooler_refused"
    assert "docs/operators.md" in body["detail"]
    assert "unsupported startup parameter: options" in capsys.readouterr().out
