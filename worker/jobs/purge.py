"""The job that deletes the files of superseded versions after their grace period, and proves it.

The proof is a listing of the store.
"""

from uuid import UUID

import structlog
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from domain import jobs, trail
from domain.events import VersionPurged
from domain.tables import Job, ModelVersion
from worker.engine import lease
from worker.engine.workbench import Workbench
from worker.jobs import purge_deleted
from worker.store.artifacts import Store
from worker.store.version_files import FILES, delete_unnamed, is_due

log = structlog.get_logger()


def purge(bench: Workbench) -> None:
    """Delete the files of all versions of the job's model that are due. Idempotent: if this attempt
    is killed, the next one finishes with the same result.

    Raises:
        LeaseLost: another worker has the job.
        StoreUnwritable: a file could not be deleted.
    """
    for attempt in bench.transaction():
        with attempt as session:
            job = session.get_one(Job, bench.claim.job_id)
            model_id = job.model_id
            due = session.scalars(
                select(ModelVersion.id)
                .where(ModelVersion.model_id == model_id, *is_due())
                .order_by(ModelVersion.number)
            ).all()
    for version_id in due:
        for attempt in bench.transaction():
            with attempt as session:
                lease.hold(session, bench.claim)
                _purge(session, bench.store, version_id, job_id=bench.claim.job_id)
    for attempt in bench.transaction():
        with attempt as session:
            job = lease.hold(session, bench.claim)
            purge_deleted.finish(session, job)
            jobs.complete(session, job, actor="worker")


def _purge(session: Session, store: Store, version_id: UUID, *, job_id: UUID) -> None:
    """Delete one version's files, and record it in the transaction that marks the version."""
    version = session.get_one(ModelVersion, version_id, with_for_update=True)
    if version.purged_at is not None:
        return
    version.purged_at = func.now()
    session.flush()  # from here on the version names no files
    digests = {name: sha256 for name in FILES if (sha256 := getattr(version, name)) is not None}
    named = delete_unnamed(session, store, digests.values())
    kept = [name.removesuffix("_sha256") for name, digest in digests.items() if digest in named]
    trail.record(
        session, "worker", version.id,
        VersionPurged(
            model=version.model_id, number=version.number, job=job_id,
            weights_sha256=version.weights_sha256, statistics_sha256=version.statistics_sha256,
            reservoir_sha256=version.reservoir_sha256,
            features_sha256=version.features_sha256,
            deleted=len(digests) - len(kept), kept=kept, left=0,
        ),
    )  # fmt: skip
    log.info("version.purged", version=version.number, kept=kept)
