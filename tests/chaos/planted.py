"""A stack without defects, and the means to plant one."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb
from sqlalchemy.engine import make_url

from chaos.checker import Violation, check
from chaos.promise import Offer, Promise
from devstack import roles
from domain.tables import AuditEvent
from evidence import entries, merkle, signed_notes

UNGUARDED = "-c session_replication_role=replica"
"""Neither triggers nor foreign keys: what they refuse is planted here."""


@dataclass(frozen=True, slots=True)
class Planted:
    """A stack in which all is well, until a test plants something."""

    connection: psycopg.Connection[dict[str, Any]]
    store: Path
    promise: Promise
    ids: dict[str, UUID]
    offers: list[Offer] = field(default_factory=list)
    others: list[Promise] = field(default_factory=list)
    """Promises besides, that nobody has an answer to."""

    def sql(self, statement: str, *more: object) -> None:
        self.connection.execute(statement, [*more] if more else self.ids)

    def event(self, event: str, subject: str, **data: object) -> None:
        """With its position, as the trigger that is off here would give it."""
        self.connection.execute(
            "WITH told AS (INSERT INTO audit_events (actor, event, subject_id, data) "
            "VALUES ('x', %s, %s, %s) RETURNING id) INSERT INTO audit_leaves "
            "SELECT coalesce((SELECT max(position) + 1 FROM audit_leaves), 0), id FROM told",
            [event, self.ids.get(subject) or uuid4(), Jsonb(data)],
        )

    def sign(self, size: int | None = None) -> None:
        """A checkpoint of the first entries, or of all, as the service makes it."""
        told = self.connection.execute(
            "SELECT position, audit_events.* FROM audit_events JOIN audit_leaves ON event_id = id "
            "ORDER BY position"
        ).fetchall()[:size]
        leaves = [
            merkle.leaf_hash(entries.entry(_event(columns), columns["position"]))
            for columns in told
        ]
        checkpoint = signed_notes.Checkpoint("lethe", len(leaves), merkle.root_of(leaves))
        self.connection.execute(
            "INSERT INTO audit_checkpoints (size, note) VALUES (%s, %s)",
            [len(leaves), signed_notes.signed(checkpoint, [])],
        )

    def found(self) -> list[Violation]:
        return check(self.connection, self.store, [self.promise, *self.others], self.offers)

    def rules(self) -> set[str]:
        return {each.rule for each in self.found()}


def connect(url: str) -> psycopg.Connection[dict[str, Any]]:
    plain = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    plain = roles.as_role(plain, roles.SUPERUSER)  # who alone may be unguarded
    return psycopg.connect(plain, row_factory=dict_row, options=UNGUARDED)


def _event(columns: dict[str, Any]) -> AuditEvent:
    return AuditEvent(**{name: each for name, each in columns.items() if name != "position"})


def promise(request_id: UUID) -> Promise:
    return Promise(
        "key", frozenset({"t0", "t1", "h0"}), frozenset({"cnn"}), request_id, answers={b"{}"}
    )


def files_of(store: Path, content: bytes, kept: list[str]) -> dict[str, str]:
    """Files of a version, stored under their hashes."""
    reservoir = store / "reservoir"
    pq.write_table(pa.table({"sample_id": kept}), reservoir)
    parts = {"weights": content, "statistics": content + b"!", "reservoir": reservoir.read_bytes()}
    reservoir.unlink()
    digests = {}
    for role, part in parts.items():
        digest = hashlib.sha256(part).hexdigest()
        path = store / "objects" / digest[:2] / digest
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(part)
        digests[f"{role}_sha256"] = digest
    return digests


def tell(stack: Planted, first: Any, second: Any) -> None:
    """The audit events of all that."""
    stack.event("dataset.registered", "dataset")
    stack.event("dataset.indexed", "dataset")
    stack.event("model.registered", "model")
    stack.event("model.checked", "model")
    for job in ("indexing", "registering", "job"):
        stack.event("job.queued", job)
        stack.event("job.started", job, attempt=1)
    for job in ("indexing", "registering"):
        stack.event("job.completed", job, attempt=1)
    stack.event("version.created", "first", weights_sha256=first.weights_sha256)
    for status in ("received", "scheduled", "running", "scheduled", "running"):
        stack.event(f"request.{status}", "request")
    stack.event("job.released", "job", attempt=1, why="its lease ran out")
    stack.event("job.started", "job", attempt=2)
    stack.event("version.superseded", "first")
    stack.event("version.created", "second", weights_sha256=second.weights_sha256, samples=2)
    stack.event("job.completed", "job", attempt=2)
    stack.event("request.completed", "request")
    stack.sign(11)
    stack.sign()


def elsewhere(stack: Planted, *trained_on: str, left_out: int = 2) -> None:
    """The second version was not made by a job that forgot, but trained on these samples and
    registered."""
    stack.sql("UPDATE model_versions SET parent_id = NULL WHERE id = %(second)s")
    stack.sql(
        "UPDATE jobs SET kind = 'register_version', verdict = NULL, base_version_id = %(first)s "
        "WHERE id = %(job)s"
    )
    stack.event("version.declared", "second", left_out=left_out)
    _register(stack, "job", "ready", trained_on)


def refused(stack: Planted, *trained_on: str) -> None:
    """A version that was trained on these samples was refused, by a job of its own."""
    stack.ids["refusing"] = uuid4()
    stack.sql(
        "INSERT INTO jobs SELECT (jsonb_populate_record(job, jsonb_build_object('id', "
        "%(refusing)s::text, 'kind', 'register_version', 'status', 'failed', 'attempt', 1, "
        "'verdict', NULL, 'failure', '{}'::jsonb))).* FROM jobs job WHERE id = %(registering)s"
    )
    stack.event("job.queued", "refusing")
    stack.event("job.started", "refusing", attempt=1)
    stack.event("job.failed", "refusing", attempt=1)
    _register(stack, "refusing", "failed", trained_on)
    stack.event("version.failed", "model", job=str(stack.ids["refusing"]))


def _register(stack: Planted, job: str, status: str, trained_on: tuple[str, ...]) -> None:
    registration = uuid4()
    stack.sql(
        "INSERT INTO version_registrations (id, model_id, job_id, idempotency_key, fingerprint, "
        "weights_uri, trained_on, accept_accuracy, accept_memory, status, failure) "
        "VALUES (%s, %s, %s, 'offered', '', '', '{}', false, false, %s, %s)",
        registration, stack.ids["model"], stack.ids[job], status,
        "so" if status == "failed" else None,
    )  # fmt: skip
    stack.event("version.offered", "model", job=str(stack.ids[job]))
    place = f"/v1/models/cnn/registrations/{registration}"
    stack.offers.append(Offer("offered", "cnn", frozenset(trained_on), place=place))


def moved_on(stack: Planted, *ids: str) -> None:
    """The dataset was brought to a second state, with these samples."""
    stack.ids["state"] = uuid4()
    stack.sql("UPDATE jobs SET kind = 'index_state' WHERE id = %(indexing)s")
    stack.sql("UPDATE datasets SET state = 2")
    stack.sql(
        "INSERT INTO dataset_states (id, dataset_id, job_id, idempotency_key, fingerprint, uri, "
        "refuse_suppressed, status, number) "
        "VALUES (%(state)s, %(dataset)s, %(indexing)s, 'moved', '', '', false, 'ready', 2)"
    )
    for event in ("dataset.state_registered", "dataset.state_indexed"):
        stack.event(event, "dataset", job=str(stack.ids["indexing"]))
    place = f"/v1/datasets/digits/states/{stack.ids['state']}"
    stack.offers.append(Offer("moved", "digits", frozenset(ids), is_state=True, place=place))
