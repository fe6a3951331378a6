"""The files that model versions name in the store: which are due for deletion, and who may delete.

A job's files appear before the row that names them, and two versions may name one file. So naming
and deleting take turns, under a lock in Postgres. Never imports torch.
"""

from collections.abc import Collection

from sqlalchemy import ColumnElement, exists, func, or_, select
from sqlalchemy.orm import Session

from domain.errors import StoreUnwritable
from domain.states import JobKind, JobStatus, RegistrationStatus, VersionStatus
from domain.tables import Job, Model, ModelVersion
from worker.store.artifacts import Store

NAMING_LOCK = 0x1E80

FILES = ("weights_sha256", "statistics_sha256", "reservoir_sha256", "features_sha256")
"""The columns that name them; few versions have the last."""


def is_due() -> tuple[ColumnElement[bool], ...]:
    """The conditions for deleting a version's files now; of a deleted model, all.

    A job that began while it was the champion may still be reading them.
    """
    deleted = exists().where(
        Model.id == ModelVersion.model_id, Model.status == RegistrationStatus.DELETED
    )
    being_read = exists().where(
        Job.model_id == ModelVersion.model_id,
        Job.status == JobStatus.RUNNING,
        Job.kind != JobKind.PURGE,
        Job.started_at < ModelVersion.superseded_at,
    )
    return (
        ModelVersion.status == VersionStatus.SUPERSEDED,
        ModelVersion.purged_at.is_(None),
        or_(ModelVersion.purge_after <= func.now(), deleted),
        ~being_read,
    )


def delete_unnamed(session: Session, store: Store, digests: Collection[str]) -> set[str]:
    """Delete these files, except those that an unpurged version names; return the exceptions.

    Raises:
        StoreUnwritable: a file could not be deleted, or is still listed.
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
        raise StoreUnwritable(
            f"{len(left)} deleted files are still listed in the store at LETHE_STORE; check its "
            "file system"
        )
    return named


def keep_files(session: Session, store: Store, digests: Collection[str]) -> None:
    """Check that the files exist, and keep them until the transaction has named them.

    Raises:
        StoreUnwritable: a file was deleted since it was put, because no version named it.
    """
    session.execute(select(func.pg_advisory_xact_lock_shared(NAMING_LOCK)))
    if missing := {*digests} - store.listed(digests):
        raise StoreUnwritable(f"{len(missing)} new files were deleted from the store meanwhile")
