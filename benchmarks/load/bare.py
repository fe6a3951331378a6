"""The limit: routes that do one INSERT or one SELECT and nothing else.

`uvicorn --factory benchmarks.load.bare:app`. Pool, driver, sessions and parsing of the body are the
service's own, and the answer is made the same way. There is no key to check, no idempotency, no
look-up of names or ids, no audit event, no log and no doorbell. `POST /requests` stores the body as
one value; `POST /rows` stores the rows of a submission in our tables: a request, its ids and its
target; `POST /driver` stores the same rows directly through the driver.
"""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from uuid import UUID

from fastapi import FastAPI, Response
from sqlalchemy import Column, MetaData, Table, Uuid, insert, select, text
from sqlalchemy.dialects.postgresql import JSONB
from uuid_utils.compat import uuid7

from domain.database import async_engine, async_sessions
from domain.settings import MigrationSettings
from domain.states import Objective, RequestStatus
from domain.tables import DeletionRequest, Model
from service.deletion_requests.demands import DeletionRequestCreate
from service.deletion_requests.submission import rows_of
from service.fields import Out

bodies = Table(
    "bare_bodies",
    MetaData(),
    Column("id", Uuid, primary_key=True),
    Column("body", JSONB, nullable=False),
)
requests = DeletionRequest.__table__
SQL = """
    WITH request AS (
        INSERT INTO deletion_requests (id, dataset_id, objective, exact, status, samples,
                                       duplicates, received_at, due_at)
        VALUES (:id, :dataset_id, :objective, :exact, 'pending', :samples,
                0, now(), now() + interval '1 month')
    ), target AS (
        INSERT INTO deletion_targets (request_id, model_id, status, already_forgotten,
                                      not_trained_on)
        VALUES (:id, :model_id, 'pending', 0, 0)
    )
    INSERT INTO request_samples (request_id, sample_id)
    SELECT :id, unnest(CAST(:ids AS text[]))
"""
ROWS = text(SQL)
BY_THE_DRIVER = re.sub(r":(\w+)", r"%(\1)s", SQL) + " RETURNING request_id"


class Stored(Out):
    id: UUID


class Row(Out):
    """All columns of a row of `deletion_requests`."""

    id: UUID
    dataset_id: UUID
    objective: Objective
    exact: bool
    status: RequestStatus
    subject_ref: str | None
    reason: str | None
    samples: int
    duplicates: int
    received_at: datetime
    due_at: datetime
    created_at: datetime
    finished_at: datetime | None


def app() -> FastAPI:
    engine = async_engine(MigrationSettings().database_url)
    sessions = async_sessions(engine)
    known: dict[str, UUID] = {}

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with engine.begin() as connection:
            await connection.run_sync(bodies.metadata.create_all)
            asked = select(Model.id.label("model_id"), Model.dataset_id)
            known.update((await connection.execute(asked)).one()._mapping)
        yield
        await engine.dispose()

    api = FastAPI(lifespan=lifespan)

    @api.post("/requests")
    async def store(body: DeletionRequestCreate) -> Response:
        """Store the body in one row."""
        row_id = uuid7()
        async with sessions.begin() as session:
            row = insert(bodies).values(id=row_id, body=body.model_dump(mode="json"))
            await session.execute(row)
        return _json(Stored(id=row_id), 202)

    @api.post("/rows")
    async def store_rows(body: DeletionRequestCreate) -> Response:
        """Store the same rows as a submission, in one statement."""
        row_id = uuid7()
        asked = {"objective": body.objective, "exact": body.exact}
        named = body.sample_ids or []
        ids = {"samples": len(named), "ids": list(set(named))}
        async with sessions.begin() as session:
            await session.execute(ROWS, {"id": row_id, **known, **asked, **ids})
        return _json(Stored(id=row_id), 202)

    @api.post("/driver")
    async def store_rows_by_the_driver(body: DeletionRequestCreate) -> Response:
        """Store the same rows without SQLAlchemy, as a submission does."""
        row_id, named = uuid7(), body.sample_ids or []
        async with engine.begin() as connection:
            await rows_of(
                connection,
                BY_THE_DRIVER,
                id=row_id,
                **known,
                objective=str(body.objective),
                exact=body.exact,
                samples=len(named),
                ids=list(set(named)),
            )
        return _json(Stored(id=row_id), 202)

    @api.get("/requests/{request_id}")
    async def read(request_id: UUID) -> Response:
        """Read one request's row by its primary key."""
        async with sessions.begin() as session:
            row = (await session.execute(select(requests).filter_by(id=request_id))).one()
        return _json(Row.model_validate(row), 200)

    return api


def _json(content: Out, status: int) -> Response:
    return Response(content.model_dump_json(), status, media_type="application/json")
