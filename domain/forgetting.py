"""What it means that a model has forgotten: which version is served, what is kept, what is known.

For the worker, whose job ends with a version that passes, and for the API, where a person accepts
one that failed. All of it happens in the caller's transaction, with the champion's row locked.
"""

from collections.abc import Collection
from datetime import timedelta
from uuid import UUID

from sqlalchemy import ARRAY, Select, String, delete, exists, func, literal, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from domain import tombstones, trail
from domain.events import ReservoirReplaced, VersionSuperseded
from domain.policy import Policy
from domain.states import VersionStatus
from domain.tables import (
    DeletionTarget,
    Job,
    MembershipStatistics,
    Model,
    ModelVersion,
    NearDuplicate,
    OutOfSamplePrediction,
    RequestSample,
    Tombstone,
)
from domain.trail import Actor


def supersede(
    session: Session, version: ModelVersion, *, actor: Actor, at_once: bool = False
) -> None:
    """Never serve this version again: it holds what was to be forgotten. Its files go when the
    grace of its model's policy is over, or at once."""
    policy = Policy.model_validate(session.get_one(Model, version.model_id).policy)
    grace = timedelta(0) if at_once else policy.grace
    version.status, version.superseded_at = VersionStatus.SUPERSEDED, func.now()
    version.purge_after = func.now() + grace
    session.flush()
    trail.record(session, actor, version.id, VersionSuperseded(number=version.number))


def promote(session: Session, version: ModelVersion, *, over: ModelVersion, actor: Actor) -> None:
    """Serve this version, which may be new, and the champion before it never again."""
    supersede(session, over, actor=actor)
    version.status = VersionStatus.CHAMPION
    session.add(version)
    session.flush()


def replace_reservoir(
    session: Session,
    champion: ModelVersion,
    sha256: str,
    *,
    job_id: UUID,
    left_out: int,
    actor: Actor,
) -> str:
    """Let the champion's jobs work on another file, which lacks samples that were not for training;
    the digest of the one before, which nobody may need any more."""
    replaced, champion.reservoir_sha256 = champion.reservoir_sha256, sha256
    event = ReservoirReplaced(
        job=job_id, reservoir_sha256=sha256, replaced_sha256=replaced, samples=left_out
    )
    trail.record(session, actor, champion.id, event)
    return replaced


def record_forgotten(session: Session, *, job_id: UUID, model_id: UUID) -> None:
    """From now on the model has forgotten every sample that the job's requests name, whether it had
    learned from it or not.

    To be called before the requests are completed: the ids that they named go with that. Samples
    that other jobs made forgotten since they were named keep their tombstones; the targets say how
    many they are.
    """
    named = _named(job_id, model_id)
    _count_forgotten_before(session, job_id, model_id)
    key = tombstones.key_of(model_id)
    ids = named.subquery()
    session.execute(
        insert(Tombstone)
        .from_select(
            ["model_id", "digest", "job_id"],
            select(literal(model_id), tombstones.digest(key, ids.c.sample_id), literal(job_id)),
        )
        .on_conflict_do_nothing()
    )
    mine = exists().where(Tombstone.job_id == job_id)
    session.execute(update(Job).where(Job.id == job_id, mine).values(forgotten_at=func.now()))
    lock_reference_rows(session, model_id)
    for table in (OutOfSamplePrediction, MembershipStatistics, NearDuplicate):
        session.execute(delete(table).where(table.model_id == model_id, table.sample_id.in_(named)))


def record_left_out(
    session: Session, *, job_id: UUID, model_id: UUID, sample_ids: Collection[str]
) -> None:
    """From now on the model counts as having forgotten these samples: its champion was trained
    elsewhere, as was declared without them. Samples that have a tombstone keep it."""
    if not sample_ids:
        return
    each = func.unnest(literal(list(sample_ids), ARRAY(String))).table_valued("sample_id")
    ids = each.render_derived()
    found = tombstones.digest(tombstones.key_of(model_id), ids.c.sample_id)
    session.execute(
        insert(Tombstone)
        .from_select(
            ["model_id", "digest", "job_id"],
            select(literal(model_id), found, literal(job_id)),
        )
        .on_conflict_do_nothing()
    )
    mine = exists().where(Tombstone.job_id == job_id)
    session.execute(update(Job).where(Job.id == job_id, mine).values(forgotten_at=func.now()))
    lock_reference_rows(session, model_id)
    named = select(ids.c.sample_id)
    for table in (OutOfSamplePrediction, MembershipStatistics, NearDuplicate):
        session.execute(delete(table).where(table.model_id == model_id, table.sample_id.in_(named)))


def lock_reference_rows(session: Session, model_id: UUID) -> None:
    """Wait for whoever writes or deletes what reference models said, until the transaction ends: a
    sample that is forgotten while it is written must not come back."""
    session.execute(select(Model.id).filter_by(id=model_id).with_for_update(key_share=True))


def _named(job_id: UUID, model_id: UUID) -> Select[str]:
    """The ids that requests of the job name."""
    return (
        select(RequestSample.sample_id)
        .join(DeletionTarget, DeletionTarget.request_id == RequestSample.request_id)
        .where(DeletionTarget.job_id == job_id, DeletionTarget.model_id == model_id)
        .distinct()
    )


def _count_forgotten_before(session: Session, job_id: UUID, model_id: UUID) -> None:
    """Tell each target of the job how many of its samples have a tombstone already."""
    before = (
        select(func.count())
        .select_from(RequestSample)
        .where(
            RequestSample.request_id == DeletionTarget.request_id,
            tombstones.has(model_id, RequestSample.sample_id),
        )
        .scalar_subquery()
    )
    session.execute(
        update(DeletionTarget)
        .where(DeletionTarget.job_id == job_id, DeletionTarget.model_id == model_id)
        .values(already_forgotten=before)
        .execution_options(synchronize_session=False)
    )
