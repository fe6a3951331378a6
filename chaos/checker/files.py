"""The store holds the files that versions name, under their own hashes, and nothing else."""

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pyarrow.parquet as pq

from chaos.checker.violation import Violation

Connection = psycopg.Connection[dict[str, Any]]
LOCK = Path("lock")
"""The lock held while a file gets its name."""

ROLES = ("weights_sha256", "statistics_sha256", "reservoir_sha256", "features_sha256")
"""The last one is null for most versions."""


def violations(
    connection: Connection, store: Path, tombstones: list[dict[str, Any]]
) -> Iterator[Violation]:
    """What is wrong with the files."""
    versions = connection.execute("SELECT * FROM model_versions").fetchall()
    named = _named(versions)
    objects = store / "objects"
    for digest in named:
        path = objects / digest[:2] / digest
        if not path.is_file():
            yield Violation("file_missing", digest)
        elif hashlib.sha256(path.read_bytes()).hexdigest() != digest:
            yield Violation("hash_wrong", digest)
    for digest in {row[role] for row in versions for role in ROLES if row[role]} - named:
        if any((objects / digest[:2]).glob(f"{digest}*")):
            yield Violation("purged_file_left", digest)
    yield from left_over(connection, store)
    yield from _kept_though_forgotten(connection, objects, tombstones)


def left_over(connection: Connection, store: Path) -> Iterator[Violation]:
    """Files and directories that nothing names; the sweep removes them once they are old enough."""
    rows = connection.execute("SELECT * FROM model_versions").fetchall()
    named = {Path("objects", digest[:2], digest) for digest in _named(rows)}
    for path in sorted(_walk(store)):
        place = path.relative_to(store)
        if place.parts[0] == "checkpoints":
            if len(place.parts) == 2:
                yield Violation("checkpoint_left", str(place))
        elif place.name.startswith("incoming-"):
            yield Violation("unfinished_left", str(place))
        elif path.is_file() and _owner(place) not in named and place != LOCK:
            yield Violation("orphan", str(place))


def _owner(place: Path) -> Path:
    """The file that this one stands beside, or itself."""
    return place.with_name(place.name.partition(".")[0])


def _named(versions: list[dict[str, Any]]) -> set[str]:
    """The file names of unpurged versions."""
    unpurged = [version for version in versions if version["purged_at"] is None]
    return {version[role] for version in unpurged for role in ROLES if version[role]}


def _walk(store: Path) -> Iterator[Path]:
    """Everything in the store, without what is deleted while it is read."""
    for folder, folders, names in os.walk(store):  # skips a deleted folder
        yield from (Path(folder, name) for name in (*folders, *names))


def _kept_though_forgotten(
    connection: Connection, objects: Path, tombstones: list[dict[str, Any]]
) -> Iterator[Violation]:
    """Check that no champion's reservoir has a sample that its model has forgotten."""
    forgotten: dict[Any, set[str]] = defaultdict(set)
    for row in tombstones:
        forgotten[row["model_id"]].add(row["sample_id"])
    rows = connection.execute(
        "SELECT model_id, reservoir_sha256 AS digest FROM model_versions WHERE status = 'champion'"
    ).fetchall()
    for row in rows:
        path = objects / row["digest"][:2] / row["digest"]
        if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == row["digest"]:
            kept = pq.read_table(path, columns=["sample_id"])["sample_id"].to_pylist()
            known = len({*kept} & forgotten[row["model_id"]])
            if known:
                yield Violation(
                    "kept_though_forgotten", f"{known} samples, model {row['model_id']}"
                )
