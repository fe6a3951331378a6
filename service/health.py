"""Whether the process lives, and whether it can serve."""

import asyncio
import re
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import structlog
from alembic.script import ScriptDirectory
from fastapi import APIRouter, Depends, Request
from psycopg.errors import UndefinedTable
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    NoPermissionError,
    RedisError,
    ResponseError,
)
from sqlalchemy import exc, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from domain import database_errors
from domain.broker_url import Broker
from domain.database_errors import Kind
from domain.doorbell import WHY_SHOWN
from domain.errors import Unavailable
from domain.settings import ApiSettings
from service.fields import Out
from service.kept import Kept
from service.problems import OPEN, documented

router = APIRouter(tags=["operations"])

MIGRATIONS = Path(__file__).resolve().parent.parent / "migrations"
TIMEOUT_S = 5
BROKER_TIMEOUT_S = 1

REVISION = "SELECT version_num, current_setting('transaction_read_only') FROM alembic_version"

log = structlog.get_logger()


class Liveness(Out):
    """A sign of life from the process."""

    status: Literal["alive"] = "alive"
    """Always `alive`, since the process answered."""


BrokerState = Literal[
    "reachable", "unreachable", "authentication_failed", "no_such_database", "tls_failed",
    "too_many_connections", "starting", "refused",
]  # fmt: skip


class Readiness(Out):
    """Whether requests can be served, and what is missing."""

    status: Literal["ready", "degraded"]
    """Whether everything works. It is `degraded` if the broker cannot be used: requests are
    accepted, and their jobs start at the next sweep."""

    revision: str
    """The revision of the database schema."""

    broker: BrokerState
    """Whether the message broker answers, and if it does not, why."""


async def kept(request: Request) -> Kept[Readiness]:
    """Whether the service can work, as it was a second ago."""
    return cast("Kept[Readiness]", request.app.state.readiness)


@router.get("/livez", summary="Check that the process is alive", responses=documented(common=OPEN))
async def live() -> Liveness:
    """Check that the process answers. It depends on nothing else."""
    return Liveness()


@router.get(
    "/readyz",
    summary="Check that the service is ready",
    responses=documented(Unavailable, common=OPEN),
)
async def ready(readiness: Annotated[Kept[Readiness], Depends(kept)]) -> Readiness:
    """Check that the service can work: Postgres answers and has the schema that this version of the
    service needs. It is looked for once a second at most. If it cannot, the answer is 503, and its
    member `database` says what is wrong: `unreachable`, `authentication_failed`,
    `no_such_database`, `permission_denied`, `read_only`, `too_many_connections`, `pooler_refused`,
    `tls_required`, `tls_failed`, `starting`, `no_space`, `timeout`, `pool_exhausted`,
    `wrong_schema` or `refused`."""
    return await readiness.get()


async def look(sessions: async_sessionmaker[AsyncSession], settings: ApiSettings) -> Readiness:
    """Ask Postgres and the broker. Raises Unavailable if the service cannot work."""
    revision, broker = await asyncio.gather(
        _checked_revision(sessions), _state_of(Broker.of(settings.broker_url))
    )
    return Readiness(
        status="ready" if broker == "reachable" else "degraded", revision=revision, broker=broker
    )


async def _checked_revision(sessions: async_sessionmaker[AsyncSession]) -> str:
    try:
        async with asyncio.timeout(TIMEOUT_S), sessions.begin() as session:
            row = (await session.execute(text(REVISION))).one_or_none()
            revision, read_only = row or (None, "off")
            # A role may be allowed to read the revision and no more.
            await session.execute(text("SELECT FROM deletion_requests LIMIT 0"))
    except (DBAPIError, exc.TimeoutError, OSError) as error:  # OSError: the time is up, too
        kind = database_errors.kind_of(error)
        if kind is None and not _has_no_table(error):
            raise
        if kind is not None:
            log.warning("database.unavailable", **database_errors.told(error))
            raise _refusal(kind) from None
        revision, read_only = None, "off"
    if revision != _newest_revision():
        raise Unavailable(
            f"The database schema is at revision {revision or 'nothing'}, but this version of the "
            f"service needs {_newest_revision()}. Run `alembic upgrade head`.",
            database="wrong_schema",
        )
    if read_only == "on":
        raise _refusal("read_only")
    return str(revision)


def _refusal(kind: Kind) -> Unavailable:
    detail = f"The database cannot be used. {database_errors.ADVICE[kind]}"
    return Unavailable(detail, database=kind)


def _has_no_table(error: Exception) -> bool:
    return isinstance(getattr(error, "orig", None), UndefinedTable)


@cache
def _newest_revision() -> str | None:
    return ScriptDirectory(MIGRATIONS).get_current_head()


async def _state_of(broker: Broker) -> BrokerState:
    how: dict[str, Any] = {
        "socket_connect_timeout": BROKER_TIMEOUT_S,
        "socket_timeout": BROKER_TIMEOUT_S,
        "retry": Retry(NoBackoff(), 0),  # of its own accord it tries for 4 to 15 seconds
    }
    try:
        async with Redis(**broker.for_redis, **how) as client:
            await client.ping()
    except (RedisError, OSError, TimeoutError) as error:
        state = _why(error)
        log.warning("broker.unreachable", kind=state, why=" ".join(str(error).split())[:WHY_SHOWN])
        return state
    return "reachable"


def _why(error: Exception) -> BrokerState:
    """From the error's class, or from the words of the server."""
    said = str(error)
    if isinstance(error, AuthenticationError | AuthorizationError | NoPermissionError):
        return "authentication_failed"
    if re.search(r"NOAUTH|WRONGPASS|NOPERM|invalid (username|password)", said):
        return "authentication_failed"
    if re.search(r"SSL|certificate", said):
        return "tls_failed"
    if "DB index" in said or "SELECT is not allowed" in said:
        return "no_such_database"
    if "max number of clients" in said:
        return "too_many_connections"
    if isinstance(error, BusyLoadingError):
        return "starting"
    return "refused" if isinstance(error, ResponseError) else "unreachable"
