"""Connections to Postgres, for the async API and the sync worker, from one URL."""

from sqlalchemy import Engine, create_engine, make_url
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import Session, sessionmaker

CONNECT = {"connect_timeout": 3, "tcp_user_timeout": 10_000}
"""Seconds and milliseconds: a server that is gone is an error, not a wait."""

KEEP_PLANS = "-c plan_cache_mode=force_generic_plan"
"""The API's statements are few and short, and planning one costs more than to run it. Left alone,
Postgres plans them anew whenever a table has grown since."""


def async_sessions(engine: AsyncEngine) -> async_sessionmaker[AsyncSession]:
    """Sessions whose rows can be read after the commit."""
    return async_sessionmaker(engine, expire_on_commit=False)


def sync_sessions(engine: Engine) -> sessionmaker[Session]:
    """Sessions whose rows can be read after the commit."""
    return sessionmaker(engine, expire_on_commit=False)


def async_engine(url: str) -> AsyncEngine:
    """Connections for the API. One that Postgres closed meanwhile is replaced before use.

    Parameters stay out of error messages, because sample ids are among them.
    """
    options = make_url(url).query.get("options", "")
    return create_async_engine(
        url,
        pool_pre_ping=True,
        pool_size=10,
        pool_timeout=10,
        connect_args={**CONNECT, "options": f"{options} {KEEP_PLANS}"},
        hide_parameters=True,
    )


def sync_engine(url: str) -> Engine:
    """Connections for the worker, as `async_engine` makes them for the API."""
    return create_engine(
        url, pool_pre_ping=True, pool_size=4, connect_args=CONNECT, hide_parameters=True
    )
