"""What a route may ask for.

All `async`: FastAPI sends a plain function to a thread, which costs more than these do.
"""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Annotated, cast

from celery import Celery
from fastapi import Depends, Header, Request
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_sessionmaker

from domain.settings import ApiSettings
from service.problems import IDEMPOTENCY_KEY


async def sessions(request: Request) -> async_sessionmaker[AsyncSession]:
    """Sessions of the process's pool."""
    return cast("async_sessionmaker[AsyncSession]", request.app.state.sessions)


async def queue(request: Request) -> Celery:
    """Where the worker is rung for."""
    return cast("Celery", request.app.state.queue)


async def settings(request: Request) -> ApiSettings:
    """The settings that the process started with."""
    return cast("ApiSettings", request.app.state.settings)


async def idempotency_key(
    key: Annotated[
        str,
        Header(
            alias=IDEMPOTENCY_KEY,
            pattern=r"^[\x21-\x7e]+$",
            min_length=1,
            max_length=255,
            description="A key of your choice that identifies this request, so that sending it "
            "again changes nothing: 1 to 255 visible ASCII characters, such as a UUID.",
        ),
    ],
) -> str:
    """The request's Idempotency-Key. `service.problems` answers one that is missing or malformed
    as `IdempotencyKeyMissing`."""
    return key


Transactions = Callable[[], AbstractAsyncContextManager[AsyncConnection]]
"""Begins one on a connection of its own, and commits it at its end unless something failed."""

Sessions = Annotated[async_sessionmaker[AsyncSession], Depends(sessions)]
Queue = Annotated[Celery, Depends(queue)]
Settings = Annotated[ApiSettings, Depends(settings)]
IdempotencyKey = Annotated[str, Depends(idempotency_key)]
