"""What a route may ask for.

All `async`: FastAPI sends a plain function to a thread, which costs more than these do.
"""

import re
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Annotated, cast

from celery import Celery
from fastapi import Depends, Header, Request
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_sessionmaker

from domain.errors import IdempotencyKeyMissing
from domain.settings import ApiSettings


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
        str | None,
        Header(
            alias="Idempotency-Key",
            description="Required. A key of your choice that identifies this request, so that "
            "sending it again changes nothing: 1 to 255 visible ASCII characters, such as a UUID.",
        ),
    ] = None,
) -> str:
    """The request's Idempotency-Key.

    Raises:
        IdempotencyKeyMissing: there is none, or not of the form that one has.
    """
    if key is None or not re.fullmatch(r"[\x21-\x7e]{1,255}", key):
        raise IdempotencyKeyMissing(
            "Send an `Idempotency-Key` header of 1 to 255 visible ASCII characters, such as a "
            "UUID. Use the same key whenever you send the same request again."
        )
    return key


Transactions = Callable[[], AbstractAsyncContextManager[AsyncConnection]]
"""Begins one on a connection of its own, and commits it at its end unless something failed."""

Sessions = Annotated[async_sessionmaker[AsyncSession], Depends(sessions)]
Queue = Annotated[Celery, Depends(queue)]
Settings = Annotated[ApiSettings, Depends(settings)]
IdempotencyKey = Annotated[str, Depends(idempotency_key)]
