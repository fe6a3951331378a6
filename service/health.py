"""Whether the process lives, and whether it can serve."""

import asyncio
from functools import cache
from pathlib import Path
from typing import Annotated, Literal, cast

import structlog
from alembic.script import ScriptDirectory
from fastapi import APIRouter, Depends, Request
from redis.asyncio import Redis
from redis.exceptions import RedisError
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from domain.errors import Unavailable
from domain.settings import ApiSettings
from service.fields import Out
from service.kept import Kept
from service.problems import OPEN, documented

router = APIRouter(tags=["operations"])

MIGRATIONS = Path(__file__).resolve().parent.parent / "migrations"
TIMEOUT_S = 5
BROKER_TIMEOUT_S = 1

log = structlog.get_logger()


class Liveness(Out):
    """A sign of life from the process."""

    status: Literal["alive"] = "alive"
    """Always `alive`, since the process answered."""


class Readiness(Out):
    """Whether requests can be served, and what is missing."""

    status: Literal["ready", "degraded"]
    """Whether everything works. It is `degraded` if the broker cannot be reached: requests are
    accepted, and their jobs start at the next sweep."""

    revision: str
    """The revision of the database schema."""

    broker: Literal["reachable", "unreachable"]
    """Whether the message broker answers."""


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
    service needs. It is looked for once a second at most."""
    return await readiness.get()


async def look(sessions: async_sessionmaker[AsyncSession], settings: ApiSettings) -> Readiness:
    """Ask Postgres and the broker. Raises Unavailable if the service cannot work."""
    revision, reachable = await asyncio.gather(
        _checked_revision(sessions), _broker_answers(str(settings.broker_url))
    )
    return Readiness(
        status="ready" if reachable else "degraded",
        revision=revision,
        broker="reachable" if reachable else "unreachable",
    )


async def _checked_revision(sessions: async_sessionmaker[AsyncSession]) -> str:
    try:
        async with asyncio.timeout(TIMEOUT_S), sessions.begin() as session:
            revision = await session.scalar(text("SELECT version_num FROM alembic_version"))
    except TimeoutError:
        raise Unavailable("The database did not answer in time; try again later.") from None
    except ProgrammingError:
        revision = None
    if revision != _newest_revision():
        raise Unavailable(
            f"The database schema is at revision {revision or 'nothing'}, but this version of the "
            f"service needs {_newest_revision()}. Run `alembic upgrade head`."
        )
    return str(revision)


@cache
def _newest_revision() -> str | None:
    return ScriptDirectory(MIGRATIONS).get_current_head()


async def _broker_answers(url: str) -> bool:
    client = Redis.from_url(
        url, socket_connect_timeout=BROKER_TIMEOUT_S, socket_timeout=BROKER_TIMEOUT_S
    )
    try:
        async with client:
            await client.ping()
    except (RedisError, OSError, TimeoutError) as error:
        log.warning("broker.unreachable", kind=type(error).__name__)
        return False
    return True
