"""With 100,000 queued requests: how long sweeps and lists take, and the plans of the lists."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from statistics import median
from typing import Any
from uuid import UUID

from sqlalchemy import Engine, event, insert, text
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlalchemy.orm import Session
from uuid_utils.compat import uuid7

from domain import sample_digests
from domain.database import async_engine, async_sessions, sync_engine, sync_sessions
from domain.states import JobStatus, RequestStatus
from domain.tables import Model
from service import figures
from service.audit import operations as audit
from service.deletion_requests import reading as requests
from service.jobs import operations as jobs
from service.paging import Window
from worker.housekeeping import planner

QUEUED = 100_000
MODELS = 20
FINISHED_JOBS = 10_000
REPEATS = 20

List = Callable[[async_sessionmaker[Any]], Awaitable[object]]

FIRST_PAGE = Window(limit=50)
LISTS: dict[str, List] = {
    "GET /v1/deletion-requests": lambda sessions: requests.find(
        sessions, FIRST_PAGE, status=None, model=None
    ),
    "GET /v1/deletion-requests?status=pending": lambda sessions: requests.find(
        sessions, FIRST_PAGE, status=RequestStatus.PENDING, model=None
    ),
    "GET /v1/deletion-requests?status=completed": lambda sessions: requests.find(
        sessions, FIRST_PAGE, status=RequestStatus.COMPLETED, model=None
    ),
    "GET /v1/deletion-requests?model=net-07": lambda sessions: requests.find(
        sessions, FIRST_PAGE, status=None, model="net-07"
    ),
    "GET /v1/deletion-requests?model=idle": lambda sessions: requests.find(
        sessions, FIRST_PAGE, status=None, model="idle"
    ),
    "GET /v1/jobs": lambda sessions: jobs.find(
        sessions, FIRST_PAGE, status=None, kind=None, model=None
    ),
    "GET /v1/jobs?status=queued": lambda sessions: jobs.find(
        sessions, FIRST_PAGE, status=JobStatus.QUEUED, kind=None, model=None
    ),
    "GET /v1/jobs?model=idle": lambda sessions: jobs.find(
        sessions, FIRST_PAGE, status=None, kind=None, model="idle"
    ),
    "GET /v1/audit/events": lambda sessions: audit.find(sessions, FIRST_PAGE, subject_id=None),
    "GET /v1/admin/metrics": figures.read,
}


def measure(database_url: str) -> tuple[dict[str, Any], str]:
    """Fill a database, then time sweeps and lists; return figures, and plans in Markdown."""
    engine = sync_engine(database_url)
    _fill(engine)
    lists = asyncio.run(_time_lists(database_url))
    planning = []
    pending = QUEUED
    while pending:
        seconds, queued = _sweep(engine)
        planning.append(seconds)
        pending, before = _pending(engine), pending
        if pending == before:
            break  # the jobs are full
    _vacuum(engine)
    idle = [_sweep(engine)[0] for _ in range(3)]
    planned = asyncio.run(_time_lists(database_url))
    plans = asyncio.run(_plans(database_url))
    engine.dispose()
    return {
        "requests_queued": QUEUED,
        "models": MODELS,
        "jobs_finished_before": FINISHED_JOBS,
        "jobs_after_the_sweep": len(queued),
        "sweeps_that_plan": len(planning),
        "requests_left_waiting": pending,
        "sweep_that_plans_median_s": round(median(planning), 3),
        "sweep_that_plans_worst_s": round(max(planning), 3),
        "sweeps_with_nothing_to_plan_s": [round(seconds, 3) for seconds in idle],
        "lists_while_pending_ms": lists,
        "lists_once_planned_ms": planned,
    }, plans


def _sweep(engine: Engine) -> tuple[float, list[UUID]]:
    started = time.perf_counter()
    queued = planner.sweep(sync_sessions(engine), max_losses=3)
    return time.perf_counter() - started, queued


def _pending(engine: Engine) -> int:
    with engine.connect() as connection:
        count = text("SELECT count(*) FROM deletion_targets WHERE status = 'pending'")
        return int(connection.execute(count).scalar_one())


def _fill(engine: Engine) -> None:
    """Create `MODELS` models named `net-00`… and one named `idle`; requests of two samples each, in
    turns to all models except `idle`; and older finished jobs."""
    with sync_sessions(engine).begin() as session:
        dataset_id = uuid7()
        session.execute(
            text(
                "INSERT INTO datasets (id, name, uri, definition, tombstone_key, status) "
                "VALUES (:id, 'digits', 'file:///x', '{}', :key, 'ready')"
            ),
            {"id": dataset_id, "key": sample_digests.new_key()},
        )
        names = [*(f"net-{number:02d}" for number in range(MODELS)), "idle"]
        models = [_model(session, dataset_id, name) for name in names]
        session.execute(text(JOBS), {"models": models, "count": FINISHED_JOBS})
        session.execute(
            text(REQUESTS), {"dataset": dataset_id, "models": models[:MODELS], "count": QUEUED}
        )
    _vacuum(engine)


def _vacuum(engine: Engine) -> None:
    """Do what autovacuum would do within minutes."""
    with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        connection.execute(text("VACUUM ANALYZE"))


def _model(session: Session, dataset_id: UUID, name: str) -> UUID:
    model_id = uuid7()
    columns = ["id", "name", "dataset_id", "weights_uri", "architecture", "head", "preprocessing",
               "policy", "status"]  # fmt: skip
    values = [model_id, name, dataset_id, "", {}, "head", {}, {}, "ready"]
    session.execute(insert(Model).values(dict(zip(columns, values, strict=True))))
    return model_id


# UUIDv7 ids: the clock's milliseconds in the first 48 bits, so that they sort by time.
_ID = (
    "(lpad(to_hex(extract(epoch FROM now())::bigint * 1000 - :count + n), 12, '0') "
    "|| '7' || substr(md5(n::text || '{salt}'), 1, 3) || '8' || substr(md5(n::text), 1, 15))::uuid"
)
JOBS = f"""
    INSERT INTO jobs (id, kind, model_id, status, attempt, losses, progress, created_at,
                      started_at, finished_at, objective)
    SELECT {_ID.format(salt="job")}, 'unlearn', (CAST(:models AS uuid[]))[1 + n % 20],
           'completed', 1, 0, 1.0, now() - interval '1 hour', now() - interval '1 hour',
           now() - random() * interval '50 minutes', 'untrain_samples'
    FROM generate_series(1, :count) AS n
"""
REQUESTS = f"""
    WITH new AS MATERIALIZED (
        SELECT {_ID.format(salt="request")} AS id, n,
               (CAST(:models AS uuid[]))[1 + n % cardinality(CAST(:models AS uuid[]))] AS model_id
        FROM generate_series(1, :count) AS n
    ), requests AS (
        INSERT INTO deletion_requests (id, dataset_id, objective, exact, status, samples,
                                       duplicates, received_at, due_at)
        SELECT id, :dataset, 'untrain_samples', false, 'pending', 2, 0, now(),
               now() + interval '1 month'
        FROM new
    ), samples AS (
        INSERT INTO request_samples (request_id, sample_id)
        SELECT id, 'sample-' || (2 * n + each) FROM new, generate_series(0, 1) AS each
    ), events AS (
        INSERT INTO audit_events (actor, event, subject_id, data)
        SELECT 'api', 'request.received', id, '{{"samples": 2, "duplicates": 0}}' FROM new
    )
    INSERT INTO deletion_targets (request_id, model_id, status, already_forgotten, not_trained_on)
    SELECT id, model_id, 'pending', 0, 0 FROM new
"""


async def _time_lists(database_url: str) -> dict[str, dict[str, float]]:
    """Milliseconds that each list takes inside the API, transaction included."""
    engine = async_engine(database_url)
    sessions = async_sessions(engine)
    times: dict[str, dict[str, float]] = {}
    for name, read in LISTS.items():
        taken = []
        for _ in range(REPEATS):
            started = time.perf_counter()
            await read(sessions)
            taken.append((time.perf_counter() - started) * 1e3)
        times[name] = {"median": round(median(taken), 1), "max": round(max(taken), 1)}
    await engine.dispose()
    return times


async def _plans(database_url: str) -> str:
    """`EXPLAIN (ANALYZE, BUFFERS)` of every statement that the lists send."""
    engine = async_engine(database_url)
    sent: list[tuple[str, Any]] = []

    def remember(_: Any, __: Any, statement: str, parameters: Any, *___: Any) -> None:
        sent.append((statement, parameters))

    event.listen(engine.sync_engine, "before_cursor_execute", remember)
    parts = ["# Plans of the lists\n\nWritten by `make bench-load`.\n"]
    for name, read in LISTS.items():
        sent.clear()
        await read(async_sessions(engine))
        statements = list(sent)
        parts.append(f"## {name}\n")
        async with engine.connect() as connection:
            for statement, parameters in statements:
                rows = await connection.exec_driver_sql(
                    f"EXPLAIN (ANALYZE, BUFFERS, COSTS OFF) {statement}", parameters
                )
                plan = "\n".join(row[0] for row in rows)
                parts.append(f"```sql\n{statement.strip()}\n```\n\n```\n{plan}\n```\n")
    await engine.dispose()
    return "\n".join(parts)
