"""Compares database and store with the suppression ledger: what did a backup bring back?

A backup from before a deletion knows nothing of it: its models have not forgotten, its superseded
versions are served again, deleted files are back. The ledger knows.
"""

from calendar import monthrange
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from uuid import UUID

from sqlalchemy import and_, func, or_, select
from sqlalchemy.orm import Session, sessionmaker

from domain import sample_digests
from domain.states import Objective, VersionStatus
from domain.tables import (
    Dataset,
    LogCheckpoint,
    LogLeaf,
    Model,
    ModelVersion,
    Sample,
    SuppressionLift,
    Tombstone,
)
from worker.restore.ledger import FILES, ForgottenSample, Kept, Lift, Retired
from worker.store.artifacts import Store

AT_ONCE = 10_000
"""Samples fetched at a time, and the most that one request names."""

REASON = "restored from a backup"


@dataclass(frozen=True, slots=True)
class Demand:
    """Samples that a model knows again, and how to have them forgotten again."""

    objective: Objective
    exact: bool
    sample_ids: Sequence[str] = field(repr=False)
    due_at: datetime
    """When the last of them was forgotten."""

    @property
    def received_at(self) -> datetime:
        """A calendar month earlier, so that the request is due at `due_at`."""
        year, month = divmod(self.due_at.year * 12 + self.due_at.month - 2, 12)
        day = min(self.due_at.day, monthrange(year, month + 1)[1])
        return self.due_at.replace(year=year, month=month + 1, day=day)


@dataclass(frozen=True, slots=True)
class Reappeared:
    """A model that lacks tombstones."""

    model: str
    dataset: str
    in_database: bool
    """False if the model is missing; then nothing came back with it."""

    missing: int
    """Number of missing tombstones."""

    demands: Sequence[Demand]

    @property
    def samples(self) -> int:
        """How many samples came back: those that lack a tombstone and are still in the dataset."""
        return sum(len(demand.sample_ids) for demand in self.demands)


@dataclass(frozen=True, slots=True)
class Served:
    """A champion that had been superseded. It is replaced once its model has forgotten again."""

    model: str
    number: int


@dataclass(frozen=True, slots=True)
class File:
    """A file in the store that belongs to a purged version, or to none known."""

    model: str
    number: int
    digest: str


@dataclass(frozen=True, slots=True)
class Rollback:
    """A log that lacks events covered by an anchored checkpoint."""

    anchored: int
    """The size of the newest anchored checkpoint that the database's log does not match."""

    agreed: int
    """The size of the newest anchored checkpoint that matches; later events were lost or differ."""

    size: int
    """The size of the log in the database."""


@dataclass(frozen=True, slots=True)
class Findings:
    """What a backup brought back."""

    models: Sequence[Reappeared]
    served: Sequence[Served]
    files: Sequence[File]
    lifts: Sequence[Lift]
    """Lifts of suppressions that the database does not know. Their samples are suppressed again, to
    be on the safe side, until they are lifted again."""

    rollback: Rollback | None
    """Cannot be undone: anyone who holds a later checkpoint sees it."""

    @property
    def came_back(self) -> bool:
        return bool(self.served or self.files or any(model.samples for model in self.models))


def check(
    sessions: sessionmaker[Session], store: Store, kept: Kept, anchors: Path | None
) -> Findings:
    """Compare; change nothing.

    Args:
        anchors: the directory of anchored checkpoints, if there is one.
    """
    with sessions.begin() as session:
        return Findings(
            models=_models(session, kept),
            served=_served(session, kept.retired),
            files=_files(session, store, kept.retired),
            lifts=_lifts(session, kept.lifts),
            rollback=_rollback(session, anchors) if anchors else None,
        )


def _models(session: Session, kept: Kept) -> list[Reappeared]:
    """Every model that lacks tombstones, by name."""
    of_model: defaultdict[tuple[UUID, UUID], list[ForgottenSample]] = defaultdict(list)
    for sample in kept.forgotten:
        of_model[sample.dataset_id, sample.model_id].append(sample)
    found = [
        _reappeared(session, kept.keys.get(dataset_id), forgotten)
        for (dataset_id, _), forgotten in of_model.items()
    ]
    return sorted((each for each in found if each.missing), key=lambda each: each.model)


def _reappeared(
    session: Session, key: bytes | None, forgotten: Sequence[ForgottenSample]
) -> Reappeared:
    """What a model should have forgotten and has not.

    The model and its dataset are found by id. If the ids are gone, they are found by name: they
    were registered again, and the dataset has a new key.
    """
    first = forgotten[0]
    wanted = {sample.digest: sample for sample in forgotten}
    by_name = and_(Model.name == first.model, Dataset.name == first.dataset)
    models = (
        select(Model, Dataset)
        .join(Dataset, Dataset.id == Model.dataset_id)
        .where(or_(Model.id == first.model_id, by_name))
    )
    rows = session.execute(models).all()
    row = next((row for row in rows if row[0].id == first.model_id), rows[0] if rows else None)
    if row is None:
        return Reappeared(first.model, first.dataset, False, len(wanted), [])
    model, dataset = row
    if key is None:
        key = dataset.tombstone_key
    tombstones = set(session.scalars(select(Tombstone.digest).filter_by(model_id=model.id)))
    back: defaultdict[tuple[Objective, bool], list[tuple[str, ForgottenSample]]] = defaultdict(list)
    missing = wanted.keys() - tombstones if key == dataset.tombstone_key else {*wanted}
    for sample_id in _samples(session, dataset.id) if missing else ():
        digest = sample_digests.digest(key, sample_id)
        if digest not in missing:
            continue
        if sample_digests.digest(dataset.tombstone_key, sample_id) in tombstones:
            missing.remove(digest)
            continue
        sample = wanted[digest]
        back[sample.objective, sample.exact].append((sample_id, sample))
    demands = [
        demand
        for (objective, exact), named in sorted(back.items())
        for demand in _demands(objective, exact, sorted(named, key=lambda pair: pair[0]))
    ]
    return Reappeared(model.name, dataset.name, True, len(missing), demands)


def _samples(session: Session, dataset_id: UUID) -> Iterator[str]:
    ids = select(Sample.sample_id).filter_by(dataset_id=dataset_id)
    yield from session.scalars(ids.execution_options(yield_per=AT_ONCE))


def _demands(
    objective: Objective, exact: bool, named: Sequence[tuple[str, ForgottenSample]]
) -> Iterator[Demand]:
    """The samples in chunks that fit one request; the same chunks on every call."""
    for start in range(0, len(named), AT_ONCE):
        piece = named[start : start + AT_ONCE]
        due_at = max(sample.forgotten_at for _, sample in piece)
        yield Demand(objective, exact, [sample_id for sample_id, _ in piece], due_at)


def _lifts(session: Session, kept: Mapping[UUID, Lift]) -> list[Lift]:
    known = set(session.scalars(select(SuppressionLift.id)))
    missing = [lift for lift_id, lift in kept.items() if lift_id not in known]
    return sorted(missing, key=lambda lift: lift.lifted_at)


def _served(session: Session, retired: Mapping[UUID, Retired]) -> list[Served]:
    champions = session.execute(
        select(ModelVersion, Model.name)
        .join(Model, Model.id == ModelVersion.model_id)
        .where(ModelVersion.status == VersionStatus.CHAMPION)
        .order_by(Model.name)
    )
    return [Served(model, row.number) for row, model in champions if row.id in retired]


def _files(session: Session, store: Store, retired: Mapping[UUID, Retired]) -> list[File]:
    """Files that no version may have any more but that are in the store.

    A file of a champion, a candidate or a version in its grace period stays, even if others had it.
    """
    rows = {row.id: row for row in session.scalars(select(ModelVersion)).all()}
    named = {
        getattr(row, f"{name}_sha256")
        for row in rows.values()
        for name in FILES
        if row.status is not VersionStatus.SUPERSEDED
        or row.id not in retired
        or not retired[row.id].purged
    }
    return [
        File(version.model, version.number, digest)
        for version in sorted(retired.values(), key=lambda each: (each.model, each.number))
        for digest in sorted({*version.files} - named)
        if store.holds(digest)
    ]


def _rollback(session: Session, anchors: Path) -> Rollback | None:
    """The rollback, if a checkpoint was anchored that the database's log does not match."""
    own = {row.size: row.note for row in session.scalars(select(LogCheckpoint)).all()}
    anchored = {int(file.stem): file.read_text() for file in anchors.glob("*.checkpoint")}
    lost = [size for size, note in anchored.items() if own.get(size) != note]
    if not lost:
        return None
    agreed = max((size for size in anchored.keys() - lost if size < min(lost)), default=0)
    size = session.scalars(select(func.coalesce(func.max(LogLeaf.position) + 1, 0))).one()
    return Rollback(max(lost), agreed, size)
