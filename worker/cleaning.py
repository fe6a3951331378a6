"""Deletes what nobody needs any more. Idempotent, and one at a time under an advisory lock."""

import structlog
from sqlalchemy import CompoundSelect, delete, func, select, union
from sqlalchemy.orm import Session, sessionmaker

from service.settings import WorkerSettings
from service.tables import IdempotencyKey, ModelVersion
from worker import checkpoints, webhooks
from worker.artifacts import Store

CLEANING_LOCK = 0x1E7F

log = structlog.get_logger()


def clean(sessions: sessionmaker[Session], store: Store, settings: WorkerSettings) -> None:
    """Delete checkpoints of ended jobs, files that no version names, answers to old keys and old
    deliveries."""
    checkpoints.delete_of_ended(sessions, store)
    with sessions.begin() as session:
        if not session.scalar(select(func.pg_try_advisory_xact_lock(CLEANING_LOCK))):
            return
        too_old = IdempotencyKey.created_at < func.now() - settings.idempotency_retention
        session.execute(delete(IdempotencyKey).where(too_old))
        webhooks.forget_old(session)
        named = set(session.scalars(_digests()))
    removed = store.remove_orphans(named, older_than=settings.orphan_age)
    if removed:
        log.info("store.cleaned", files=removed)


def _digests() -> CompoundSelect[str]:
    """Every file that a version names, but for those that were purged."""
    columns = (
        ModelVersion.weights_sha256,
        ModelVersion.statistics_sha256,
        ModelVersion.reservoir_sha256,
    )
    return union(*(select(column).where(ModelVersion.purged_at.is_(None)) for column in columns))
