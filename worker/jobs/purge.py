"""Deletes the files of superseded versions when their grace is over, and proves it by a listing.

Files of a job appear before the row that names them, and two versions may name one file. So who
names files and who deletes them take turns, under a lock in Postgres. Never imports torch.
"""

from collections.abc import Collection
from datetime import timedelta
from uuid import UUID

import structlog
from sqlalchemy import ColumnElement, and_, exists, func, or_, select
from sqlalchemy.orm import Session, sessionmaker

from domain import trail
from domain.errors import StoreUnwritable
from domain.states import OPEN_JOBS, JobKind, JobStatus, VersionStatus
from domain.tables import Job, ModelVersion
from worker.engine import lease
from worker.engine.lease import Claim
from worker.engine.retrying import patiently
from worker.store.artifacts import Store

NAMING_LOCK = 0x1E80
AGAIN_AFTER = timedelta(hours=1)
"""When a purge that failed is planned anew."""

FILES = ("weights_sha256", "statistics_sha256", "reservoir_sha256")

log = structlog.get_logger()


def plan(session: Session) -> None:
    """Queue a job for each model that has something to purge.

    Not for one that has such a job, or had one that failed a moment ago.
    """
    lately = Job.finished_at > func.now() - AGAIN_AFTER
    at_it = exists().where(
        Job.model_id == ModelVersion.model_id,
        Job.kind == JobKind.PURGE,
        or_(Job.status.in_(OPEN_JOBS), and_(Job.status == JobStatus.FAILED, lately)),
    )
    models = select(ModelVersion.model_id).where(*is_due(), ~at_it).distinct()
    for model_id in session.scalars(models).all():
        job = Job(kind=JobKind.PURGE, model_id=model_id)
        session.add(job)
        session.flush()
        trail.record(session, "worker", "job.queued", job.id, model=str(model_id))


def is_due() -> tuple[ColumnElement[bool], ...]:
    """The conditions on a version whose files are to be deleted now.

    A job that began while it was the champion may still be reading them.
    """
    being_read = exists().where(
        Job.model_id == ModelVersion.model_id,
        Job.status == JobStatus.RUNNING,
        Job.kind != JobKind.PURGE,
        Job.started_at < ModelVersion.superseded_at,
    )
    return (
        ModelVersion.status == VersionStatus.SUPERSEDED,
        ModelVersion.purged_at.is_(None),
        ModelVersion.purge_after <= func.now(),
        ~being_read,
    )


def purge(sessions: sessionmaker[Session], store: Store, held: Claim) -> None:
    """Delete the files of all versions of the job's model that are due. Done twice, it changes
    nothing; killed in between, the next attempt ends as this one would have.

    Raises:
        LeaseLost: the job is somebody else's by now.
        StoreUnwritable: a file could not be deleted.
    """
    for attempt in patiently():
        with attempt, sessions.begin() as session:
            model_id = session.get_one(Job, held.job_id).model_id
            due = session.scalars(
                select(ModelVersion.id)
                .where(ModelVersion.model_id == model_id, *is_due())
                .order_by(ModelVersion.number)
            ).all()
    for version_id in due:
        for attempt in patiently():
            with attempt, sessions.begin() as session:
                lease.hold(session, held)
                _purge(session, store, version_id, job_id=held.job_id)
    for attempt in patiently():
        with attempt, sessions.begin() as session:
            lease.complete(session, lease.hold(session, held))


def _purge(session: Session, store: Store, version_id: UUID, *, job_id: UUID) -> None:
    """Delete one version's files, and say so in the transaction that marks it."""
    version = session.get_one(ModelVersion, version_id, with_for_update=True)
    if version.purged_at is not None:
        return
    version.purged_at = func.now()
    session.flush()  # from here on it names nothing
    digests = {name: str(getattr(version, name)) for name in FILES}
    named = delete_unnamed(session, store, digests.values())
    kept = [name.removesuffix("_sha256") for name, digest in digests.items() if digest in named]
    trail.record(
        session, "worker", "version.purged", version.id,
        model=str(version.model_id), number=version.number, job=str(job_id), **digests,
        deleted=len(digests) - len(kept), kept=kept, left=0,
    )  # fmt: skip
    log.info("version.purged", version=version.number, kept=kept)


def delete_unnamed(session: Session, store: Store, digests: Collection[str]) -> set[str]:
    """Delete these files but for those that a version names which was not purged; the latter.

    Raises:
        StoreUnwritable: a file could not be deleted, or is listed still.
    """
    session.execute(select(func.pg_advisory_xact_lock(NAMING_LOCK)))
    named: set[str] = set()
    for column in (getattr(ModelVersion, name) for name in FILES):
        unpurged = select(column).where(column.in_(digests), ModelVersion.purged_at.is_(None))
        named.update(session.scalars(unpurged))
    gone = {*digests} - named
    for digest in gone:
        store.remove(digest)
    if left := store.listed(gone):
        raise StoreUnwritable(f"{len(left)} deleted files are listed in the store at LETHE_STORE")
    return named


def keep_files(session: Session, store: Store, digests: Collection[str]) -> None:
    """See that files are there, and stay until the transaction has named them.

    Raises:
        StoreUnwritable: one was deleted since it was put, as no version named it any more.
    """
    session.execute(select(func.pg_advisory_xact_lock_shared(NAMING_LOCK)))
    if missing := {*digests} - store.listed(digests):
        raise StoreUnwritable(f"{len(missing)} new files were deleted from the store meanwhile")
