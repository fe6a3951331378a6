"""What is wrong with a database and a store, whatever the service says of them.

Independent on purpose: plain SQL and hashes, nothing from `service` or `worker`; what is lawful is
written down here a second time. Each rule yields the violations it finds, and has a test that
plants one.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import psycopg

from chaos.checker import files, log, promises, tombstones, trail, versions
from chaos.checker.violation import Violation
from chaos.promise import Promise

__all__ = ["Violation", "check"]


def check(
    connection: psycopg.Connection[dict[str, Any]], store: Path, promised: Iterable[Promise]
) -> list[Violation]:
    """Everything that is wrong, when nothing is left to be done.

    Args:
        promised: all deletion requests that clients have sent to this database.
    """
    promised = list(promised)
    forgotten = tombstones.read(connection)
    return [
        *promises.violations(connection, promised),
        *versions.violations(connection, promised, forgotten),
        *trail.violations(connection, forgotten),
        *log.violations(connection),
        *files.violations(connection, store, forgotten),
    ]
