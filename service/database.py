"""Connections to Postgres, for the async API and the sync worker, from one URL."""

from sqlalchemy import Engine, create_engine
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, sessionmaker

def async_sessions(engine: AsyncEngine) -> async_sessionmaker[AsyncSession]:
    return async_sessionmaker(engine, expire_on_commit=False)


def sync_sessions(engine: Engine) -> sessionmaker[Session]:
    return sessionmaker(engine, expire_on_commit=False)


def async_engine(url: str) -> AsyncEngine:
    """Connections for the API. One that Postgres closed meanwhile is replaced before use."""
    return create_async_engine(url, pool_pre_ping=True, pool_size=10)


def sync_engine(url: str) -> Engine:
    """Connections for the worker. One that Postgres closed meanwhile is replaced before use."""
    return create_engine(url, pool_pre_ping=True, pool_size=4)
