"""Has a failed job tried again. One function, one transaction."""

from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from domain import jobs, requests
from domain.errors import CannotRetry, no_such
from domain.requests import PLANNING_LOCK
from domain.states import (
    BESIDE_OTHERS,
    OPEN_JOBS,
    JobKind,
    JobStatus,
    RegistrationStatus,
    RequestStatus,
)
from domain.tables import Dataset, DatasetState, DeletionTarget, Job, Model, VersionRegistration
from service.dependencies import Sessions

NOTHING_WAITS = frozenset(
    {JobKind.TRAIN_REFERENCES, JobKind.PURGE, JobKind.ERASE_ROWS, JobKind.CHECK_DATASET}
)
"""Kinds of jobs that nothing else failed with."""


async def retry(sessions: Sessions, job_id: UUID) -> None:
    """Put a failed job back into the queue, with all its attempts before it.

    Raises:
        NotFound: there is no such job.
        CannotRetry: it has not failed, nothing waits for it, or another job has its model.
    """
    async with sessions.begin() as session:
        await session.run_sync(_retry, job_id)


def _retry(session: Session, job_id: UUID) -> None:
    session.execute(select(func.pg_advisory_xact_lock(PLANNING_LOCK)))
    job = session.scalars(select(Job).filter_by(id=job_id).with_for_update()).one_or_none()
    if job is None:
        raise no_such(f"job {job_id}", listed_at="/v1/jobs")
    if job.status is not JobStatus.FAILED:
        raise CannotRetry(f"This job is {job.status}; only a failed job can be retried.")
    _require_free(session, job)
    jobs.requeue(session, job, actor="api")
    _reopen(session, job)


def _require_free(session: Session, job: Job) -> None:
    """Raises CannotRetry where another job does, or is to do, the same."""
    if job.kind is JobKind.ESTIMATE:
        raise CannotRetry(
            "The ids of an estimate are deleted when it ends; ask for a new estimate instead."
        )
    if job.kind is JobKind.CHECK_DATASET:
        return  # each is about a file of its own
    same = Job.model_id == job.model_id if job.model_id else Job.dataset_id == job.dataset_id
    rival = Job.kind == job.kind if job.kind in BESIDE_OTHERS else Job.kind.not_in(BESIDE_OTHERS)
    other = session.scalars(select(Job.id).where(same, rival, Job.status.in_(OPEN_JOBS))).first()
    if other is not None:
        raise CannotRetry(f"The job {other} has taken its place; wait until that job has ended.")


def _reopen(session: Session, job: Job) -> None:
    """What failed with the job waits for it again."""
    if job.kind is JobKind.UNLEARN:
        served = DeletionTarget.job_id == job.id
        moved = requests.move(
            session, RequestStatus.SCHEDULED, served, actor="api", job_id=DeletionTarget.job_id
        )
        if not moved:
            raise CannotRetry(
                "No request needs this job any more; submit a new request if you need one."
            )
        return
    if job.kind in NOTHING_WAITS:
        return
    if job.kind is JobKind.INDEX_STATE:
        wanted = session.scalars(select(DatasetState).filter_by(job_id=job.id)).one()
        wanted.status, wanted.failure = RegistrationStatus.PENDING, None
        return
    if job.kind is JobKind.REGISTER_VERSION:
        offered = session.scalars(select(VersionRegistration).filter_by(job_id=job.id)).one()
        offered.status, offered.failure = RegistrationStatus.PENDING, None
        return
    row: Dataset | Model
    if job.kind is JobKind.INDEX_DATASET:
        row = session.get_one(Dataset, job.dataset_id, with_for_update=True)
    else:
        row = session.get_one(Model, job.model_id, with_for_update=True)
    if row.status is not RegistrationStatus.FAILED:
        raise CannotRetry(
            f"{row.name!r} has been registered again since and is {row.status}; there is nothing "
            "to retry."
        )
    row.status, row.failure = RegistrationStatus.PENDING, None
