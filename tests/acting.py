"""Who acts on a test's connection: the service under its roles, the test as owner of the tables.

A test arranges what the service could not, such as a row of last year, on the connection on which
it then runs the service's code. So the role changes with the code that executes a statement.
"""

import sys
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any

from sqlalchemy import Engine, TextClause, event, text

from devstack import roles

ROOT = Path(__file__).resolve().parents[1]
ROLE_OF = {"worker": roles.ROLES["worker"], "service": roles.ROLES["api"]}
SHARED = ("domain", "evidence")
"""What both use: it acts for whoever called it, and for either where a test did."""

TRANSACTIONS = ("SAVEPOINT", "RELEASE", "ROLLBACK")


def become(role: str) -> TextClause:
    return text(f"SET ROLE {role}")


def as_their_roles(engine: Engine) -> None:
    """Have every statement on the engine's connections run under the role of whose it is."""
    now: dict[int, str] = {}

    def change(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith(TRANSACTIONS):
            if statement.startswith("ROLLBACK"):
                now.clear()  # this takes a change of the role back
            return
        role = _acting()
        if now.get(id(connection)) != role:
            cursor.execute(f"SET ROLE {role}")
            now[id(connection)] = role

    event.listen(engine, "before_cursor_execute", change)


def _acting() -> str:
    """The role of the code nearest to the statement."""
    frame: FrameType | None = sys._getframe(1)
    shared = False
    while frame is not None:
        room = _room(frame.f_code.co_filename)
        if room in ROLE_OF:
            return ROLE_OF[room]
        if room in SHARED:
            shared = True
        elif room is not None and room != "acting.py":
            return roles.EITHER if shared else roles.OWNER
        frame = frame.f_back
    return roles.OWNER


@cache
def _room(file: str) -> str | None:
    """The folder of the project that a file is in, `acting.py` for this one, None elsewhere."""
    if file == __file__:
        return "acting.py"
    path = Path(file)
    if not path.is_relative_to(ROOT) or ".venv" in path.parts:
        return None
    return path.relative_to(ROOT).parts[0]
