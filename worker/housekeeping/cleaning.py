"""Deletes what is no longer needed. Idempotent; an advisory lock admits one process at a time."""

from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID

import structlog
from sqlalchemy import CompoundSelect, delete, func, select, union
from sqlalchemy.orm import Session, sessionmaker

from domain import shredding
from domain.settings import WorkerSettings
from domain.states import FINAL_REQUESTS, JobStatus
from domain.tables import DeletionRequest, IdempotencyKey, Job, ModelVersion
from worker.delivery import webhooks
from worker.housekeeping import pooled_statistics
from worker.store import job_checkpoints, version_files
from worker.store.artifacts import Store

CLEANING_LOCK = 0x1E7F

SHREDDED_AT_ONCE = 1000

log = structlog.get_logger()


def clean(sessions: sessionmaker[Session], store: Store, settings: WorkerSettings) -> None:
    """Delete checkpoints of ended jobs, files that no version names, answers to old idempotency
    keys, and old deliveries; shred old requests.

    What a running job has written stays, however long the job takes to store the names.
    """
    job_checkpoints.delete_of_ended(sessions, store)
    now = datetime.now(UTC)
    with sessions.begin() as session:
        if not session.scalar(select(func.pg_try_advisory_xact_lock(CLEANING_LOCK))):
            return
        too_old = IdempotencyKey.created_at < func.now() - settings.idempotency_retention
        session.execute(delete(IdempotencyKey).where(too_old))
        webhooks.forget_old(session)
        pooled_statistics.forget_old(session)
        shredding.shred(session, _linked_too_long(session, settings), actor="worker")
        # Read this first: a job that ends after this query has named its files before the next one.
        oldest = session.scalar(
            select(func.min(Job.started_at)).filter_by(status=JobStatus.RUNNING)
        )
        named = set(session.scalars(_digests()))
    removed = store.remove_orphans(named, before=min(now, oldest or now) - settings.orphan_age)
    if removed:
        log.info("store.cleaned", files=removed)


def _linked_too_long(session: Session, settings: WorkerSettings) -> Sequence[UUID]:
    """Some requests that ended so long ago that they may no longer be linkable to a person."""
    return session.scalars(
        select(DeletionRequest.id)
        .where(
            DeletionRequest.finished_at < func.now() - settings.evidence_retention,
            DeletionRequest.shredded_at.is_(None),
            DeletionRequest.status.in_(FINAL_REQUESTS),
        )
        .order_by(DeletionRequest.finished_at)
        .limit(SHREDDED_AT_ONCE)
    ).all()


def _digests() -> CompoundSelect[str]:
    """Every file that an unpurged version names."""
    columns = [getattr(ModelVersion, name) for name in version_files.FILES]
    unpurged = ModelVersion.purged_at.is_(None)
    return union(*(select(column).where(unpurged, column.is_not(None)) for column in columns))
