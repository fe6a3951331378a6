"""The log matches what was signed: every checkpoint's root is recomputed."""

from base64 import b64encode
from collections.abc import Iterator
from datetime import UTC
from functools import reduce
from hashlib import sha256
from typing import Any

import psycopg
import rfc8785

from chaos.checker.violation import Violation


def violations(connection: psycopg.Connection[dict[str, Any]]) -> Iterator[Violation]:
    """Checkpoints that do not match the entries in the tables."""
    rows = connection.execute("SELECT size, note FROM audit_checkpoints").fetchall()
    notes = {row["size"]: row["note"] for row in rows}
    complete: list[tuple[int, bytes]] = []  # subtrees, largest first: leaves and hash (RFC 9162)
    for event in connection.execute(
        "SELECT position, id, at, actor, event, subject_id, data "
        "FROM audit_events JOIN audit_leaves ON event_id = id ORDER BY position"
    ):
        leaves, node = 1, sha256(b"\x00" + _entry(event)).digest()
        while complete and complete[-1][0] == leaves:
            leaves, node = 2 * leaves, _parent(complete.pop()[1], node)
        complete.append((leaves, node))
        size = event["position"] + 1
        note = notes.pop(size, None)
        root = reduce(lambda right, left: _parent(left, right), [h for _, h in complete][::-1])
        if note is not None and note.split("\n")[1:3] != [str(size), b64encode(root).decode()]:
            yield Violation("checkpoint_differs", f"of {size} events")
    for size in notes:
        yield Violation("checkpoint_differs", f"of {size} events, more than the log has")


def _entry(event: dict[str, Any]) -> bytes:
    at = event["at"].astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    return rfc8785.dumps({**event, "at": at, "subject_id": str(event["subject_id"])})


def _parent(left: bytes, right: bytes) -> bytes:
    return sha256(b"\x01" + left + right).digest()
