"""Queues a purge job for each model that has files to purge. Never imports torch."""

from datetime import timedelta

from sqlalchemy import ColumnElement, and_, exists, func, or_, select
from sqlalchemy.orm import Session

from domain import jobs
from domain.states import OPEN_JOBS, JobKind, JobStatus, RegistrationStatus
from domain.tables import Dataset, Job, Model, ModelVersion
from worker.store.version_files import is_due

AGAIN_AFTER = timedelta(hours=1)
"""How long after a failed purge another one is planned."""


def plan(session: Session) -> None:
    """Queue a job for each model that has something to purge, and for each deleted dataset.

    Skips those that have such a job, or had one fail recently.
    """
    lately = Job.finished_at > func.now() - AGAIN_AFTER
    open_or_failed = or_(Job.status.in_(OPEN_JOBS), and_(Job.status == JobStatus.FAILED, lately))
    purging = exists().where(Job.kind == JobKind.PURGE, open_or_failed)
    has_files = exists().where(ModelVersion.model_id == Model.id, *is_due())
    models = select(Model.id).where(
        or_(has_files, *_is_deleted(Model)), ~purging.where(Job.model_id == Model.id)
    )
    for model_id in session.scalars(models).all():
        jobs.queue(session, JobKind.PURGE, actor="worker", model_id=model_id)
    datasets = select(Dataset.id).where(
        *_is_deleted(Dataset), ~purging.where(Job.dataset_id == Dataset.id)
    )
    for dataset_id in session.scalars(datasets).all():
        jobs.queue(session, JobKind.PURGE, actor="worker", dataset_id=dataset_id)


def _is_deleted(table: type[Model] | type[Dataset]) -> tuple[ColumnElement[bool], ...]:
    """The condition on a row that it is to be purged as a whole, and was not."""
    return (and_(table.status == RegistrationStatus.DELETED, table.purged_at.is_(None)),)
