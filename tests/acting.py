"""Who acts on a test's connection: the service under its roles, the test as owner of the tables.

A test arranges what the service could not, such as a row of last year, on the connection on which
it then runs the service's code. So the role changes with the code that executes a statement.
"""

import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any

from greenlet import getcurrent
from sqlalchemy import Connection, Engine, TextClause, create_engine, event, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from devstack import roles

ROOT = Path(__file__).resolve().parents[1]
ROLE_OF = {"worker": roles.ROLES["worker"], "service": roles.ROLES["api"]}
SHARED = ("domain", "evidence")
"""What both use: it acts for whoever called it, and for either where a test did."""

TRANSACTIONS = ("SAVEPOINT", "RELEASE", "ROLLBACK")


def become(role: str) -> TextClause:
    return text(f"SET ROLE {role}")


def engine(url: str, **options: Any) -> Engine:
    """Connections to this database, on which each acts under the role that is theirs."""
    made = create_engine(roles.as_role(url, roles.SUPERUSER), **options)
    as_their_roles(made)
    return made


def async_engine(url: str, **options: Any) -> AsyncEngine:
    """The same for async code."""
    made = create_async_engine(roles.as_role(url, roles.SUPERUSER), **options)
    as_their_roles(made.sync_engine)
    return made


def as_their_roles(engine: Engine) -> None:
    """Have every statement on the engine's connections run under the role of whose it is."""

    def change(connection: Connection, cursor: Any, statement: str, *_: Any) -> None:
        role = _acting()
        if not statement.startswith(TRANSACTIONS) and connection.info.get("acting") != role:
            cursor.execute(f"SET ROLE {role}")
            connection.info["acting"] = role

    def forget(connection: Connection, *_: Any) -> None:
        if not connection.invalidated:  # else the next one begins as itself
            connection.info.pop("acting", None)

    event.listen(engine, "before_cursor_execute", change)
    for moment in ("begin", "rollback", "rollback_savepoint"):  # what is undone includes the role
        event.listen(engine, moment, forget)


def _acting() -> str:
    """The role of the code nearest to the statement."""
    shared = False
    for frame in _frames():
        room = _room(frame.f_code.co_filename)
        if room in ROLE_OF:
            return ROLE_OF[room]
        if room in SHARED:
            shared = True
        elif room is not None:
            return roles.EITHER if shared else roles.OWNER
    return roles.OWNER


def _frames() -> Iterator[FrameType]:
    """From here outwards, through the greenlets in which SQLAlchemy runs async code."""
    frame: FrameType | None = sys._getframe(1)
    greenlet = getcurrent()
    while frame is not None:
        yield frame
        frame = frame.f_back
        if frame is None and greenlet.parent is not None:
            greenlet = greenlet.parent
            frame = greenlet.gr_frame


@cache
def _room(file: str) -> str | None:
    """The folder of the project that a file is in; None elsewhere, and here."""
    path = Path(file)
    if file == __file__ or not path.is_relative_to(ROOT) or ".venv" in path.parts:
        return None
    return path.relative_to(ROOT).parts[0]
