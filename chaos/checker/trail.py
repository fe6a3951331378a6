"""The audit trail explains the present state, in lawful steps only."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any
from uuid import UUID

import psycopg

from chaos.checker.violation import Violation

Events = list[dict[str, Any]]

REQUEST_STEPS: Mapping[str, frozenset[str]] = {
    "received": frozenset({"scheduled", "completed", "cancelled"}),
    "pending": frozenset({"scheduled", "completed", "cancelled"}),
    "scheduled": frozenset({"pending", "running", "completed", "cancelled"}),
    "running": frozenset(
        {"pending", "scheduled", "completed", "needs_review", "failed", "cancelled"}
    ),
    "needs_review": frozenset({"pending", "completed"}),  # when a version from elsewhere comes
}
"""Which events may follow each event; all others are final."""

NO_STEPS = frozenset(
    {
        "request.cancel_asked",
        "request.overdue",
        "request.rows_erased",
        "request.rows_kept",
        "request.shredded",
        "certificate.issued",
        "job.resumed",
        "checkpoints.deleted",
    }
)
"""Events of a request or a job that do not change its status."""

GIVEN_BACK = frozenset({"released"})
JOB_STEPS: Mapping[str, frozenset[str]] = {
    "queued": frozenset({"started", "cancelled"}),
    "started": GIVEN_BACK | {"completed", "failed", "cancelled"},
    "released": frozenset({"started", "cancelled"}),
}
FIRST = {"request": "received", "job": "queued"}

VERSIONS = """
    SELECT version.*, job.kind = 'register_version' AS declared
    FROM model_versions version LEFT JOIN jobs job ON job.id = job_id
"""


def violations(
    connection: psycopg.Connection[dict[str, Any]], tombstones: list[dict[str, Any]]
) -> Iterator[Violation]:
    """What is wrong with the events, alone and compared with the tables."""
    by_subject: dict[UUID, Events] = defaultdict(list)
    events = connection.execute(
        "SELECT * FROM audit_events LEFT JOIN audit_leaves ON event_id = id ORDER BY position"
    ).fetchall()
    if [event["position"] for event in events] != list(range(len(events))):
        yield Violation("position_missing", f"of {len(events)} events, in the log")
    for event in events:
        by_subject[event["subject_id"]].append(event)
    for subject_id, events in by_subject.items():
        yield from _in_order(subject_id, events)
    requests = connection.execute("SELECT id, status FROM deletion_requests").fetchall()
    jobs = connection.execute("SELECT id, status, attempt FROM jobs").fetchall()
    for row in requests:
        yield from _of_request(row, by_subject.pop(row["id"], []))
    for row in jobs:
        yield from _of_job(row, by_subject.pop(row["id"], []))
    yield from _of_checkpoints(connection)
    yield from _of_versions(connection, by_subject, tombstones)
    yield from _of_registrations(connection, by_subject)
    for row in connection.execute("SELECT id FROM signing_keys").fetchall():
        by_subject.pop(row["id"], None)
    for subject_id, events in by_subject.items():
        yield Violation("event_of_nothing", f"{events[0]['event']} of {subject_id}")


def _in_order(subject_id: UUID, events: Events) -> Iterator[Violation]:
    times = [event["at"] for event in events]
    if times != sorted(times):
        yield Violation("events_out_of_order", f"{subject_id}: {_names(events)}")


def _of_request(row: dict[str, Any], events: Events) -> Iterator[Violation]:
    where = f"request {row['id']}"
    steps = [name.removeprefix("request.") for name in _steps(events)]
    yield from _lawful(where, steps, "received", REQUEST_STEPS)
    last = steps[-1] if steps else None
    if last != row["status"] and (last, row["status"]) != ("received", "pending"):
        yield Violation("event_missing", f"{where} is {row['status']}, its last event {last}")


def _of_job(row: dict[str, Any], events: Events) -> Iterator[Violation]:
    where = f"job {row['id']}"
    steps = [name.removeprefix("job.") for name in _steps(events)]
    yield from _lawful(where, steps, "queued", JOB_STEPS)
    last = steps[-1] if steps else None
    expected = {"queued": {"queued", *GIVEN_BACK}, "running": {"started"}}
    if last not in expected.get(row["status"], {row["status"]}):
        yield Violation("event_missing", f"{where} is {row['status']}, its last event {last}")
    attempts = [event["data"]["attempt"] for event in events if event["event"] == "job.started"]
    if attempts != list(range(1, row["attempt"] + 1)):
        yield Violation("attempts_wrong", f"{where} is at {row['attempt']}, started {attempts}")
    held = 0
    for event in events:
        held = event["data"]["attempt"] if event["event"] == "job.started" else held
        if event["data"].get("attempt", held) != held:
            yield Violation("attempts_wrong", f"{where}: {event['event']} of another attempt")


def _of_checkpoints(connection: psycopg.Connection[dict[str, Any]]) -> Iterator[Violation]:
    """The checkpoints of ended jobs: the trail reports their deletion, and none has a row."""
    deleted = "SELECT subject_id, data FROM audit_events WHERE event = 'checkpoints.deleted'"
    for event in connection.execute(deleted).fetchall():
        if event["data"]["left"]:
            yield Violation("checkpoint_left", f"of job {event['subject_id']}: {event['data']}")
    rows = connection.execute(
        "SELECT job_id FROM checkpoints JOIN jobs ON jobs.id = job_id "
        "WHERE jobs.status NOT IN ('queued', 'running')"
    ).fetchall()
    for row in rows:
        yield Violation("checkpoint_left", f"a row of job {row['job_id']}")


def _lawful(
    where: str, steps: list[str], first: str, lawful: Mapping[str, frozenset[str]]
) -> Iterator[Violation]:
    if not steps or steps[0] != first:
        yield Violation("event_missing", f"{where} begins with {steps[:1]}, not {first}")
    for before, after in pairwise(steps):
        if after not in lawful.get(before, ()):
            yield Violation("step_unlawful", f"{where}: {before} to {after} in {steps}")


def _of_versions(
    connection: psycopg.Connection[dict[str, Any]],
    by_subject: dict[UUID, Events],
    tombstones: list[dict[str, Any]],
) -> Iterator[Violation]:
    """A version is created, superseded and purged at most once, promoted only if a candidate, and
    its events name the files of its row. Those of a version that was trained elsewhere, and of no
    other, tell what was declared of it."""
    forgot = Counter(row["job_id"] for row in tombstones if row["split"] == "train")
    for row in connection.execute(VERSIONS).fetchall():
        where = f"version {row['number']} of model {row['model_id']}"
        events = by_subject.pop(row["id"], [])
        steps = [name for name in _names(events) if name != "reservoir.replaced"]
        ended = ["version.superseded"] if row["status"] == "superseded" else []
        ended += ["version.purged"] if row["purged_at"] else []
        made = ["version.created", *(["version.declared"] if row["declared"] else [])]
        if [name for name in steps if name != "version.promoted"] != [*made, *ended]:
            yield Violation("event_missing", f"{where} is {row['status']}, its events {steps}")
            continue
        if row["purged_at"] and events[-1]["data"]["left"]:
            yield Violation("purged_file_left", f"{where}: {events[-1]['data']}")
        created = events[0]["data"]
        if created["weights_sha256"] != row["weights_sha256"]:
            yield Violation("event_differs", f"{where} was created with other weights")
        told = events[1]["data"]["left_out"] if row["declared"] else created.get("samples")
        if row["job_id"] in forgot and told != forgot[row["job_id"]]:
            yield Violation(
                "sample_doubled",
                f"{where} was made to forget {told} samples, {forgot[row['job_id']]} are its own",
            )


OFFERED = """
    SELECT model_id AS of, job_id::text, status, 'version.offered' AS offered, NULL AS ready,
           'version.failed' AS failed FROM version_registrations
    UNION ALL SELECT dataset_id, job_id::text, status, 'dataset.state_registered',
           'dataset.state_indexed', 'dataset.state_failed' FROM dataset_states
"""
"""Later versions and states, and the events about them. That a version is ready, its own tell."""


def _of_registrations(
    connection: psycopg.Connection[dict[str, Any]], by_subject: dict[UUID, Events]
) -> Iterator[Violation]:
    """What is registered is ready or failed once, and so is each later version or state of it."""
    later: dict[UUID, Counter[tuple[str, str]]] = defaultdict(Counter)
    for row in connection.execute(OFFERED).fetchall():
        later[row["of"]][row["offered"], row["job_id"]] += 1
        if ended := row.get(row["status"]):
            later[row["of"]][ended, row["job_id"]] += 1
    for table, ready in (("datasets", "dataset.indexed"), ("models", "model.checked")):
        for row in connection.execute(f"SELECT id, name, status FROM {table}").fetchall():
            events = by_subject.pop(row["id"], [])
            expected = [f"{table[:-1]}.registered", *([ready] if row["status"] == "ready" else [])]
            first, rest = _names(events)[: len(expected)], events[len(expected) :]
            if first != expected:
                yield Violation("event_missing", f"{row['name']} is {row['status']}: {first}")
            told = Counter((event["event"], event["data"].get("job", "")) for event in rest)
            if told != later[row["id"]]:
                yield Violation("event_missing", f"later ones of {row['name']}: {_names(rest)}")


def _steps(events: Events) -> list[str]:
    return [name for name in _names(events) if name not in NO_STEPS]


def _names(events: Events) -> list[str]:
    return [event["event"] for event in events]
