"""Which models have files to purge: a job is queued for each. Never imports torch."""

from datetime import timedelta

from sqlalchemy import and_, exists, func, or_, select
from sqlalchemy.orm import Session

from domain import jobs
from domain.states import OPEN_JOBS, JobKind, JobStatus
from domain.tables import Job, ModelVersion
from worker.store.version_files import is_due

AGAIN_AFTER = timedelta(hours=1)
"""When a purge that failed is planned anew."""


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
        jobs.queue(session, JobKind.PURGE, actor="worker", model_id=model_id)
