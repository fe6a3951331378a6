"""Keeps the suppression ledger outside the database, to compare a restored backup with.

One file for each job that made samples forgotten, one for each version that was superseded or
purged, one for the key of each dataset, one for each lift of a suppression. A file is written once,
under a name that says what is in it. The directory alone shows what it lacks, whatever happened to
the database or this process.
"""

import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast
from uuid import UUID

import structlog
from sqlalchemy import and_, exists, func, select
from sqlalchemy.orm import Session, sessionmaker

from domain.events import VersionPurged
from domain.states import JobKind, Objective, VersionStatus
from domain.tables import (
    AuditEvent,
    Dataset,
    DeletionRequest,
    DeletionTarget,
    Job,
    Model,
    ModelVersion,
    SuppressionLift,
    Tombstone,
)
from worker.store.artifacts import sync

TOMBSTONES, SUPERSEDED, PURGED, KEY, LIFTED = (
    ".tombstones.jsonl", ".superseded.jsonl", ".purged.jsonl", ".key.jsonl", ".lifted.jsonl",
)  # fmt: skip
FILES = ("weights", "statistics", "reservoir", "features")
"""The files that a version has in the store; few have the last."""

AT_ONCE = 10_000
"""Tombstones fetched at a time."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class ForgottenSample:
    """A sample that a model has forgotten, and how that was requested."""

    dataset: str
    dataset_id: UUID
    model: str
    model_id: UUID
    digest: bytes
    forgotten_at: datetime
    objective: Objective
    exact: bool
    """Whether a request accepted only a retraining without it."""


@dataclass(frozen=True, slots=True)
class Retired:
    """A version that holds forgotten samples: it may not be served, nor its files kept."""

    version_id: UUID
    model: str
    model_id: UUID
    number: int
    at: datetime
    files: Sequence[str]
    """Digests of its files in the store, or after its purge, of the deleted ones."""

    purged: bool


@dataclass(frozen=True, slots=True)
class Lift:
    """A decision that samples of a dataset may be trained on again."""

    lift_id: UUID
    dataset: str
    lifted_at: datetime
    samples: int


@dataclass(frozen=True, slots=True)
class Kept:
    """Everything the directory holds."""

    keys: dict[UUID, bytes]
    """The key of each dataset's digests, by the dataset's id."""

    forgotten: list[ForgottenSample]
    retired: dict[UUID, Retired]
    """Retired versions, by id."""

    lifts: dict[UUID, Lift] = field(default_factory=dict)
    """By id. What they lifted may have been suppressed again since."""


def keep(sessions: sessionmaker[Session], directory: Path | None) -> None:
    """Write what is not in the directory yet. Idempotent, also when run concurrently."""
    if directory is None:
        return
    try:
        names = {path.name for path in directory.iterdir()}
        written = sum(
            _put(directory / name, lines, mode) for name, lines, mode in _missing(sessions, names)
        )
    except OSError as error:
        log.warning("suppressions.not_kept", why=str(error)[:200])
        return
    if written:
        log.info("suppressions.kept", files=written)


def read(directory: Path) -> Kept:
    """Everything that was ever written to the directory.

    Raises:
        OSError: it cannot be read.
        ValueError: a file in it was changed or damaged.
    """
    kept = Kept({}, [], {})
    for path in sorted(path for path in directory.iterdir() if path.suffix == ".jsonl"):
        try:
            for line in path.read_text().splitlines():
                _take(kept, path.name, json.loads(line))
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path.name} is changed or damaged ({error!r}); restore it from a copy of the "
                "directory"
            ) from error
    return kept


File = tuple[str, Iterable[dict[str, Any]], int]
"""A file: its name, its lines and its permission bits."""


def _missing(sessions: sessionmaker[Session], names: set[str]) -> Iterator[File]:
    """The files that the directory lacks; keys first, because the others need them."""
    with sessions.begin() as session:
        for dataset in session.scalars(select(Dataset)).all():
            if (name := f"{dataset.id}{KEY}") not in names:
                key = {"dataset": dataset.name, "dataset_id": dataset.id}
                yield name, [{**key, "key": dataset.tombstone_key}], 0o400
        for job_id, at in session.execute(_FORGETTING_JOBS).all():
            if (name := f"{_stamp(at)}-{job_id}{TOMBSTONES}") not in names:
                yield name, _tombstones(session, job_id), 0o444
        for lift in _lifts(session):
            if (name := f"{_stamp(lift.lifted_at)}-{lift.lift_id}{LIFTED}") not in names:
                yield name, [asdict(lift)], 0o444
        for retired in _superseded(session):
            if (name := _name(retired, SUPERSEDED)) not in names:
                yield name, [asdict(retired)], 0o444
        for retired in _purged(session):
            if (name := _name(retired, PURGED)) not in names:
                yield name, [asdict(retired)], 0o444


_ONE = select(Tombstone.forgotten_at).where(Tombstone.job_id == Job.id).limit(1)
# A job writes its tombstones in one transaction, so they share one time. After a restore it may
# write them again, at another time.
_FORGETTING_JOBS = (
    select(Job.id, _ONE.scalar_subquery())
    .where(
        Job.kind.in_([JobKind.UNLEARN, JobKind.REGISTER_VERSION]),
        exists().where(Tombstone.job_id == Job.id),
    )
    .order_by(Job.id)
)


def _tombstones(session: Session, job_id: UUID) -> Iterator[dict[str, Any]]:
    exact = exists().where(
        DeletionTarget.job_id == job_id,
        DeletionRequest.id == DeletionTarget.request_id,
        DeletionRequest.exact,
    )
    rows = session.execute(
        select(
            Dataset.name,
            Dataset.id,
            Model.name,
            Model.id,
            Tombstone.digest,
            Tombstone.forgotten_at,
            func.coalesce(Job.objective, Objective.UNTRAIN_SAMPLES),
            exact,
        )
        .join(Job, Job.id == Tombstone.job_id)
        .join(Model, Model.id == Tombstone.model_id)
        .join(Dataset, Dataset.id == Model.dataset_id)
        .where(Tombstone.job_id == job_id)
        .order_by(Tombstone.digest)
        .execution_options(yield_per=AT_ONCE)
    )
    for row in rows:
        yield asdict(ForgottenSample(*row[:6], Objective(row[6]), row[7]))


def _lifts(session: Session) -> Iterator[Lift]:
    chosen = (
        select(SuppressionLift, Dataset.name)
        .join(Dataset, Dataset.id == SuppressionLift.dataset_id)
        .order_by(SuppressionLift.id)
    )
    for lift, dataset in session.execute(chosen).all():
        yield Lift(lift.id, dataset, lift.lifted_at, lift.samples)


def _superseded(session: Session) -> Iterator[Retired]:
    rows = session.execute(
        select(ModelVersion, Model.name)
        .join(Model, Model.id == ModelVersion.model_id)
        .where(ModelVersion.status == VersionStatus.SUPERSEDED)
    )
    for version, model in rows:
        files = _digests(version, FILES)
        at = cast("datetime", version.superseded_at)
        yield Retired(version.id, model, version.model_id, version.number, at, files, purged=False)


def _purged(session: Session) -> Iterator[Retired]:
    """The purged versions, from the audit trail."""
    rows = session.execute(
        select(ModelVersion, Model.name, AuditEvent.at, AuditEvent.data)
        .join(Model, Model.id == ModelVersion.model_id)
        .join(
            AuditEvent,
            and_(AuditEvent.subject_id == ModelVersion.id, AuditEvent.event == VersionPurged.event),
        )
        .where(ModelVersion.status == VersionStatus.SUPERSEDED)
    )
    for version, model, at, told in rows:
        gone = [name for name in FILES if name not in told.get("kept", ())]
        files = _digests(version, gone)
        yield Retired(version.id, model, version.model_id, version.number, at, files, purged=True)


def _digests(version: ModelVersion, names: Iterable[str]) -> list[str]:
    found = (getattr(version, f"{name}_sha256") for name in names)
    return [digest for digest in found if digest is not None]


def _name(retired: Retired, kind: str) -> str:
    return f"{_stamp(retired.at)}-{retired.version_id}{kind}"


def _stamp(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y%m%dT%H%M%S.%fZ")


def _put(path: Path, lines: Iterable[dict[str, Any]], mode: int) -> bool:
    """Write a file so that it is complete and on disk before it gets its name."""
    descriptor, name = tempfile.mkstemp(prefix="incoming-", dir=path.parent)
    unfinished = Path(name)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.writelines(f"{json.dumps(line, default=_plain)}\n" for line in lines)
        unfinished.chmod(mode)
        sync(unfinished)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    sync(path.parent)
    return True


def _plain(value: object) -> str:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    return str(value)


def _take(kept: Kept, name: str, line: dict[str, Any]) -> None:
    """Add the record of one line."""
    if name.endswith(KEY):
        kept.keys[UUID(line["dataset_id"])] = bytes.fromhex(line["key"])
    elif name.endswith(TOMBSTONES):
        kept.forgotten.append(
            ForgottenSample(
                line["dataset"],
                UUID(line["dataset_id"]),
                line["model"],
                UUID(line["model_id"]),
                bytes.fromhex(line["digest"]),
                datetime.fromisoformat(line["forgotten_at"]),
                Objective(line["objective"]),
                bool(line["exact"]),
            )
        )
    elif name.endswith((SUPERSEDED, PURGED)):
        told = Retired(
            UUID(line["version_id"]),
            line["model"],
            UUID(line["model_id"]),
            int(line["number"]),
            datetime.fromisoformat(line["at"]),
            list(line["files"]),
            bool(line["purged"]),
        )
        known = kept.retired.get(told.version_id)
        if known is None or (told.purged and not known.purged):
            kept.retired[told.version_id] = told
        elif known.purged and told.purged:
            files = [*known.files, *told.files]
            kept.retired[told.version_id] = replace(known, files=sorted(set(files)))
    elif name.endswith(LIFTED):
        at = datetime.fromisoformat(line["lifted_at"])
        lift = Lift(UUID(line["lift_id"]), line["dataset"], at, int(line["samples"]))
        kept.lifts[lift.lift_id] = lift
    else:
        raise ValueError("the file's name has an unknown ending")
