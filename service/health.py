"""Whether the process lives, and whether it can serve."""

import asyncio
from functools import cache
from pathlib import Path
from typing import Literal

import structlog
from alembic.script import ScriptDirectory
from fastapi import APIRouter
from redis.asyncio import Redis
from redis.exceptions import RedisError
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError

from domain.errors import Unavailable
from service.dependencies import Sessions, Settings
from service.fields import Out
from service.problems import documented

router = APIRouter(tags=["operations"])

MIGRATIONS = Path(__file__).resolve().parent.parent / "migrations"
TIMEOUT_S = 5
BROKER_TIMEOUT_S = 1

log = structlog.get_logger()


class Liveness(Out):
    status: Literal["alive"] = "alive"


class Readiness(Out):
    """Whether requests can be served, and what is missing."""

    status: Literal["ready", "degraded"]
    """`degraded`: the broker is away. Requests are accepted, and start at the next sweep."""

    revision: str
    """The schema's revision."""

    broker: Literal["reachable", "unreachable"]


@router.get("/livez")
async def live() -> Liveness:
    """The process answers. Depends on nothing else."""
    return Liveness()


@router.get("/readyz", responses={503: documented()[503]})
async def ready(sessions: Sessions, settings: Settings) -> Readiness:
    """Postgres answers and has the schema this code was written for."""
    revision, reachable = await asyncio.gather(
        _checked_revision(sessions), _broker_answers(str(settings.broker_url))
    )
    return Readiness(
        status="ready" if reachable else "degraded",
        revision=revision,
        broker="reachable" if reachable else "unreachable",
    )


async def _checked_revision(sessions: Sessions) -> str:
    try:
        async with asyncio.timeout(TIMEOUT_S), sessions.begin() as session:
            revision = await session.scalar(text("SELECT version_num FROM alembic_version"))
    except TimeoutError:
        raise Unavailable("The database does not answer in time.") from None
    except ProgrammingError:
        revision = None
    if revision != _newest_revision():
        raise Unavailable(
            f"The schema is at {revision or 'nothing'}, this code needs {_newest_revision()}: "
            "run `alembic upgrade head`."
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
