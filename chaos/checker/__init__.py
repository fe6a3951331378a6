"""What is wrong with a database and a store, whatever the service says of them.

Independent on purpose: plain SQL and hashes, nothing from `service` or `worker`; what is lawful is
written down here a second time. Each rule yields the violations it finds, and has a test that
plants one.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import psycopg
from psycopg.rows import dict_row

from chaos.checker import files, promises, trail, versions
from chaos.checker.violation import Violation
from chaos.promise import Promise

__all__ = ["Violation", "check"]


def check(database_url: str, store: Path, promised: Iterable[Promise]) -> list[Violation]:
    """Everything that is wrong, when nothing is left to be done.

    Args:
        promised: all deletion requests that clients have sent to this database.
    """
    with psycopg.connect(database_url, row_factory=dict_row) as connection:
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        return list(_violations(connection, store, list(promised)))


def _violations(
    connection: psycopg.Connection[dict[str, Any]], store: Path, promised: list[Promise]
) -> Iterator[Violation]:
    yield from promises.violations(connection, promised)
    yield from versions.violations(connection)
    yield from trail.violations(connection)
    yield from files.violations(connection, store)
