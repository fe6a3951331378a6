"""Connections to Postgres, for the async API and the sync worker, from one URL."""

from dataclasses import dataclass
from typing import Any

from pydantic import SecretStr
from sqlalchemy import Engine, create_engine
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import Session, sessionmaker

from domain import database_url, pooling

DRIVER = "postgresql+psycopg://"
"""All that SQLAlchemy is told: what it does not know, none of its messages repeats."""

CONNECT = {"connect_timeout": 3, "tcp_user_timeout": 10_000}
"""Seconds and milliseconds: a server that is gone is an error, not a wait."""

KEEP_PLANS = "-c plan_cache_mode=force_generic_plan"
"""The API's statements are few and short, and planning one costs more than to run it. Left alone,
Postgres plans them anew whenever a table has grown since."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How long Postgres lets a connection's user take, in seconds; then the statement fails, or for
    `idle` the connection. What the URL says in `options` comes after, and counts."""

    statement: int
    lock: int
    """To wait for what another transaction holds."""

    idle: int
    """To do something else in the middle of a transaction."""

    def __str__(self) -> str:
        return (
            f"-c statement_timeout={self.statement}s -c lock_timeout={self.lock}s "
            f"-c idle_in_transaction_session_timeout={self.idle}s"
        )


REQUEST = Limits(statement=60, lock=10, idle=60)
"""While a client waits, and while the clock or a worker's parent looks after everything."""

JOB = Limits(statement=3600, lock=300, idle=600)
"""A job loads millions of rows in one statement, and replaces files within a transaction."""


def async_sessions(engine: AsyncEngine) -> async_sessionmaker[AsyncSession]:
    """Sessions whose rows can be read after the commit."""
    return async_sessionmaker(engine, expire_on_commit=False)


def sync_sessions(engine: Engine) -> sessionmaker[Session]:
    """Sessions whose rows can be read after the commit."""
    return sessionmaker(engine, expire_on_commit=False)


def async_engine(url: SecretStr | str, *, connections: int | None = None) -> AsyncEngine:
    """Connections for the API. One that Postgres closed meanwhile is replaced before use.

    Parameters stay out of error messages, because sample ids are among them.

    Args:
        connections: at most; None for 10, and 10 more when all of those are busy.
    """
    given = _arguments(url)
    engine = create_async_engine(
        DRIVER,
        pool_pre_ping=True,
        pool_size=connections or 10,
        max_overflow=10 if connections is None else 0,
        pool_timeout=10,
        connect_args={**given, "options": f"{REQUEST} {given['options']} {KEEP_PLANS}"},
        hide_parameters=True,
    )
    pooling.adapt(engine.sync_engine)
    return engine


def sync_engine(url: SecretStr | str, limits: Limits | None = REQUEST) -> Engine:
    """Connections for the worker, as `async_engine` makes them for the API.

    Args:
        limits: None for migrations and what a person runs by hand, who can wait and interrupt.
    """
    given = _arguments(url)
    engine = create_engine(
        DRIVER,
        pool_pre_ping=True,
        pool_size=4,
        connect_args={**given, "options": f"{limits or ''} {given['options']}"},
        hide_parameters=True,
    )
    pooling.adapt(engine)
    return engine


def _arguments(url: SecretStr | str) -> dict[str, Any]:
    """What psycopg is called with: ours, unless the URL says otherwise."""
    plain = url.get_secret_value() if isinstance(url, SecretStr) else url
    return {**CONNECT, "options": "", **database_url.arguments(plain)}
