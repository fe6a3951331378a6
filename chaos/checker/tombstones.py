"""Which samples have tombstones. Only keyed digests of ids are kept, so every id of a dataset is
digested again."""

import hmac
from typing import Any
from uuid import UUID

import psycopg

Rows = list[dict[str, Any]]

BLOCK, INNER = 64, 0x36


def read(connection: psycopg.Connection[dict[str, Any]]) -> Rows:
    """All tombstones, each with the id and split of its sample, or with the digest if the sample is
    in no dataset."""
    known: dict[tuple[UUID, bytes], dict[str, Any]] = {}
    for row in connection.execute("SELECT id, tombstone_key FROM datasets").fetchall():
        key = bytes(byte ^ INNER for byte in row["tombstone_key"][:BLOCK])
        named = "SELECT sample_id, split FROM samples WHERE dataset_id = %s"
        for sample in connection.execute(named, [row["id"]]):
            digest = hmac.digest(key, sample["sample_id"].encode(), "sha256")
            known[row["id"], digest] = sample
    rows = connection.execute(
        "SELECT model_id, dataset_id, digest, job_id FROM tombstones "
        "JOIN models ON models.id = model_id"
    ).fetchall()
    for row in rows:
        digest = bytes(row["digest"])
        unknown = {"sample_id": digest.hex(), "split": None}
        row.update(known.get((row["dataset_id"], digest), unknown))
    return rows
