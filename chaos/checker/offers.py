"""Every version and every state that was accepted ends once, and no version that is served was
trained on what its model had forgotten."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any
from uuid import UUID

import psycopg

from chaos.checker.promises import of_client
from chaos.checker.violation import Violation
from chaos.promise import Offer

Connection = psycopg.Connection[dict[str, Any]]
Rows = list[dict[str, Any]]

VERSIONS = """
    SELECT offered.id, idempotency_key AS key, model.name AS of, model.id AS model_id,
           model.dataset_id, offered.status, offered.failure, job.status AS job_status,
           job.id AS job_id, version.id AS version_id
    FROM version_registrations offered
    JOIN models model ON model.id = offered.model_id
    LEFT JOIN jobs job ON job.id = offered.job_id
    LEFT JOIN model_versions version ON version.job_id = job.id
"""

STATES = """
    SELECT state.id, idempotency_key AS key, dataset.name AS of, state.dataset_id, state.status,
           state.failure, state.number, job.status AS job_status
    FROM dataset_states state
    JOIN datasets dataset ON dataset.id = state.dataset_id
    LEFT JOIN jobs job ON job.id = state.job_id
"""

POSITIONS = """
    SELECT subject_id, max(position) AS position
    FROM audit_events JOIN audit_leaves ON event_id = id
    WHERE event IN ('job.completed', 'version.created') GROUP BY subject_id
"""
"""Where in the log a job was completed, and where a version was made: the log's order is that of
commits."""


def violations(
    connection: Connection, offers: list[Offer], tombstones: Rows
) -> Iterator[Violation]:
    """What is wrong with registrations of versions and of states."""
    versions = connection.execute(VERSIONS).fetchall()
    states = connection.execute(STATES).fetchall()
    told = {row["subject_id"]: row["position"] for row in connection.execute(POSITIONS)}
    rows = {row["id"]: row for row in (*versions, *states)}
    for offer in offers:
        yield from of_client(offer)
        if offer.registration_id is None:
            continue
        row = rows.get(offer.registration_id)
        if row is None:
            yield Violation("offer_lost", f"key {offer.key}: no row {offer.registration_id}")
            continue
        yield from _of_offer(offer, row, tombstones)
        if not offer.is_state and row["status"] == "ready":
            yield from _trained(offer, row, tombstones, told)
    yield from _doubled(rows.values(), offers)
    yield from _of_datasets(connection, states, offers)


def _of_offer(offer: Offer, row: dict[str, Any], tombstones: Rows) -> Iterator[Violation]:
    where = f"the {'state' if offer.is_state else 'version'} {row['id']} of {offer.of}"
    made = row["number"] if offer.is_state else row["version_id"]
    if row["status"] == "pending":
        yield Violation("offer_open", where)
    elif (row["status"], row["job_status"], made is not None) not in (
        ("ready", "completed", True),
        ("failed", "failed", False),
    ):
        yield Violation("offer_differs", f"{where} is {row['status']}, its job {row['job_status']}")
    if row["status"] == "failed" and not _excused(offer, row, tombstones):
        yield Violation("offer_refused", f"{where}: {row['failure']}")


def _excused(offer: Offer, row: dict[str, Any], tombstones: Rows) -> bool:
    """Whether it could be refused: a version was trained on what a model of the dataset has
    forgotten. No fault excuses it."""
    of_dataset = (each for each in tombstones if each["dataset_id"] == row["dataset_id"])
    return not offer.is_state and any(each["sample_id"] in offer.ids for each in of_dataset)


def _trained(
    offer: Offer, row: dict[str, Any], tombstones: Rows, told: Mapping[UUID, int]
) -> Iterator[Violation]:
    """Check that nothing it was trained on had a tombstone of the model when it was made."""
    made = told.get(row["version_id"], -1)
    before = {
        each["sample_id"]
        for each in tombstones
        if each["model_id"] == row["model_id"]
        and (each["job_id"] == row["job_id"] or told.get(each["job_id"], -1) < made)
    }
    known = len(before & offer.ids)
    if known:
        yield Violation(
            "trained_on_forgotten", f"{known} samples, version {row['version_id']} of {offer.of}"
        )


def _doubled(rows: Any, offers: list[Offer]) -> Iterator[Violation]:
    """Each registration is what one key was accepted for."""
    keys = {(offer.of, offer.key) for offer in offers}
    count = Counter((row["of"], row["key"]) for row in rows)
    for (of, key), times in count.items():
        if times > 1 or (of, key) not in keys:
            yield Violation("offer_doubled", f"key {key} of {of} stands for {times} registrations")


def _of_datasets(connection: Connection, states: Rows, offers: list[Offer]) -> Iterator[Violation]:
    """States are numbered from 2, and the index has the samples of the last one."""
    ids = {offer.registration_id: offer.ids for offer in offers if offer.is_state}
    for dataset in connection.execute("SELECT id, name, state FROM datasets").fetchall():
        mine = [row for row in states if row["dataset_id"] == dataset["id"] and row["number"]]
        mine.sort(key=lambda row: int(row["number"]))
        numbers = [row["number"] for row in mine]
        if numbers != list(range(2, dataset["state"] + 1)):
            yield Violation(
                "states_wrong", f"{dataset['name']} is in {dataset['state']}: {numbers}"
            )
        elif mine and mine[-1]["id"] in ids:
            indexed = connection.execute(
                "SELECT sample_id FROM samples WHERE dataset_id = %s", [dataset["id"]]
            )
            different = ids[mine[-1]["id"]] ^ {row["sample_id"] for row in indexed}
            if different:
                yield Violation("index_differs", f"{len(different)} samples of {dataset['name']}")
