"""Finds what is wrong with a database and a store, without trusting the service.

Independent on purpose: plain SQL and hashes, nothing from `service` or `worker`; the rules are
written down here a second time. Each rule yields its violations, and has a test that plants one.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import psycopg

from chaos.checker import files, log, offers, promises, tombstones, trail, versions
from chaos.checker.violation import Violation
from chaos.promise import Offer, Promise

__all__ = ["Violation", "check"]


def check(
    connection: psycopg.Connection[dict[str, Any]],
    store: Path,
    promised: Iterable[Promise],
    offered: Iterable[Offer] = (),
) -> list[Violation]:
    """Everything that is wrong once no work is left.

    Args:
        promised: all deletion requests that clients sent to this database.
        offered: all versions and states that they did.
    """
    promised, offered = list(promised), list(offered)
    forgotten = tombstones.read(connection)
    return [
        *promises.violations(connection, promised),
        *offers.violations(connection, offered, forgotten),
        *versions.violations(connection, promised, forgotten, offered),
        *trail.violations(connection, forgotten),
        *log.violations(connection),
        *files.violations(connection, store, forgotten),
    ]
