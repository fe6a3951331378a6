"""Queues a purge job for each model that has files to purge. Never imports torch."""

from datetime import timedelta

from sqlalchemy import and_, exists, func, or_, select
from sqlalchemy.orm import Session

from domain import jobs
from domain.states import OPEN_JOBS, JobKind, JobStatus
from domain.tables import Job, ModelVersion
from worker.store.version_files import is_due

AGAIN_AFTER = timedelta(hours=1)
"""How long after a failed purge another one is planned."""


def plan(session: Session) -> None:
    """Queue a job for each model that has something to purge.

    Skips models that have such a job, or had one fail recently.
    """
    lately = Job.finished_at > func.now() - AGAIN_AFTER
    at_it = exists().where(
        Job.model_id == ModelVersion.model_id,
        Job.kind == JobKind.PURGE,
        or_(Job.status.in_(OPEN_JOBS), and_(Job.status == JobStatus.FAILED, lately)),
    )
    models = select(ModelVersion.model_id).where(*is_due(), ~at_it).distinct()
    for model_id in session.scalars(models).all():
        jobs.queue(session, JobKind.PURGE, actor="worker", model_id=model_id)
