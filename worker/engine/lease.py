"""Who has a job, and what may be written about it.

Every write names the attempt that was claimed; once another worker has the job it fails with
`LeaseLost`. The attempt number is the fencing token, the lease only decides when to hand over.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Uuid, delete, exists, func, literal, or_, select, update
from sqlalchemy.orm import Session

from domain import requests, trail
from domain.errors import LeaseLost
from domain.events import (
    DatasetFailed,
    JobCompleted,
    JobFailed,
    JobReleased,
    JobStarted,
    ModelFailed,
)
from domain.states import JobKind, JobStatus, RegistrationStatus, RequestStatus
from domain.tables import Dataset, DeletionTarget, EstimateSample, Job, Model

FIRST_WAIT = timedelta(seconds=10)
"""Before an attempt after one that found the machine at fault."""

LONGEST_WAIT = timedelta(seconds=30)
"""Before each one after that."""

WAITING = frozenset({"storage", "database"})
"""Kinds of failure after which a job waits: what is full now will be full in a second."""


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to work on a job, valid until the lease runs out."""

    job_id: UUID
    attempt: int
    kind: JobKind

    @property
    def signature(self) -> str:
        """What this attempt's unfinished files are signed with."""
        return f"{self.job_id}-{self.attempt}"


def claim(session: Session, job_id: UUID, *, worker: str, lease: timedelta) -> Claim | None:
    """Take a queued job; None when it is taken, has ended, is to wait, or never was.

    A job whose worker fell silent is put back into the queue by the sweep, which counts the loss.
    """
    taken = session.execute(
        update(Job)
        .where(Job.id == job_id, *is_ready())
        .values(
            status=JobStatus.RUNNING,
            attempt=Job.attempt + 1,
            worker=worker,
            lease_until=func.now() + lease,
            not_before=None,
            started_at=func.coalesce(Job.started_at, func.now()),
            progress=0.0,
            phase="starting",
        )
        .returning(Job.attempt, Job.kind)
    ).one_or_none()
    if taken is None:
        return None
    trail.record(session, "worker", job_id, JobStarted(attempt=taken.attempt))
    move_requests(session, job_id, RequestStatus.RUNNING)
    return Claim(job_id, taken.attempt, taken.kind)


def is_ready() -> tuple[ColumnElement[bool], ...]:
    """The conditions on a job that waits for a worker."""
    due = or_(Job.not_before.is_(None), Job.not_before <= func.now())
    return Job.status == JobStatus.QUEUED, due


def renew(session: Session, held: Claim, *, lease: timedelta) -> None:
    """Keep the job for another lease.

    Raises:
        LeaseLost: somebody else has it, or it has ended.
    """
    _write(session, held, lease_until=func.now() + lease)


def report(session: Session, held: Claim, *, phase: str, progress: float) -> None:
    """Say how far the job is. Raises LeaseLost as `renew` does."""
    _write(session, held, phase=phase, progress=progress)


def is_held(session: Session, held: Claim) -> bool:
    """Whether the job is still this attempt's to do, and not cancelled meanwhile."""
    return bool(session.scalar(select(exists().where(*_is_held(held)))))


def hold(session: Session, held: Claim) -> Job:
    """The job's row, locked until the transaction ends: the start of every final transaction.

    Raises:
        LeaseLost: somebody else has the job, or it has ended.
    """
    job = session.scalars(select(Job).where(*_is_held(held)).with_for_update()).one_or_none()
    if job is None:
        raise LeaseLost(f"job {held.job_id}, attempt {held.attempt}")
    return job


def complete(
    session: Session, job: Job, *, requests: RequestStatus = RequestStatus.COMPLETED
) -> None:
    """End a held job well.

    Args:
        requests: what becomes of those it served: completed, or a person is to decide.
    """
    _end(session, job, JobStatus.COMPLETED)
    job.progress = 1.0
    ended = JobCompleted(attempt=job.attempt, verdict=job.verdict)
    trail.record(session, "worker", job.id, ended)
    move_requests(session, job.id, requests)


def fail(session: Session, job: Job, *, kind: str, reason: str) -> None:
    """End a held job badly: what it served fails with it, the champion stays."""
    _end(session, job, JobStatus.FAILED)
    job.failure = {"kind": kind, "reason": reason}
    trail.record(session, "worker", job.id, JobFailed(attempt=job.attempt, kind=kind))
    move_requests(session, job.id, RequestStatus.FAILED)
    if job.kind is JobKind.INDEX_DATASET:
        dataset = session.get_one(Dataset, job.dataset_id)
        dataset.status, dataset.failure = RegistrationStatus.FAILED, reason
        trail.record(session, "worker", dataset.id, DatasetFailed(job=job.id))
    elif job.kind is JobKind.REGISTER_MODEL:
        model = session.get_one(Model, job.model_id)
        model.status, model.failure = RegistrationStatus.FAILED, reason
        trail.record(session, "worker", model.id, ModelFailed(job=job.id))


def release(session: Session, job: Job, *, why: str, kind: str | None = None) -> None:
    """Give a held job back to the queue; by itself that costs it nothing."""
    job.status, job.lease_until, job.phase = JobStatus.QUEUED, None, "waiting for a worker"
    released = JobReleased(attempt=job.attempt, why=why, kind=kind)
    trail.record(session, "worker", job.id, released)
    move_requests(session, job.id, RequestStatus.SCHEDULED)


def lose(
    session: Session, job: Job, *, why: str, max_losses: int, kind: str = "worker_lost"
) -> None:
    """Give a job back after an attempt was lost; fail it when that has happened too often.

    Args:
        why: as the end of "the last time because …", for people.
        kind: the class of what went wrong, should the job fail with it.
    """
    job.losses += 1
    if job.losses < max_losses:
        if kind in WAITING:
            job.not_before = func.now() + min(
                FIRST_WAIT * 3 ** min(job.losses - 1, 9), LONGEST_WAIT
            )
        release(session, job, why=why, kind=kind)
        return
    reason = (
        f"{job.losses} attempts were lost, the last because {why}. When that is mended, "
        f"`POST /v1/jobs/{job.id}/retry` has it tried again."
    )
    fail(session, job, kind=kind, reason=reason)


def is_rewritten(session: Session, job: Job, *, since: datetime) -> bool:
    """Whether rows of the job's dataset are being erased, or were since then, by another job."""
    of_model = select(Model.dataset_id).where(Model.id == job.model_id).scalar_subquery()
    erasing = exists().where(
        Job.kind == JobKind.ERASE_ROWS,
        Job.id != job.id,
        Job.dataset_id == func.coalesce(literal(job.dataset_id, Uuid), of_model),
        Job.attempt > 0,
        or_(Job.finished_at.is_(None), Job.finished_at >= since),
    )
    return bool(session.scalar(select(erasing)))


def move_requests(session: Session, job_id: UUID, status: RequestStatus) -> None:
    """Take the targets a job serves one lawful step on, and their requests with them."""
    served = DeletionTarget.job_id == job_id
    requests.move(session, status, served, actor="worker", job_id=job_id)


def _write(session: Session, held: Claim, **values: Any) -> None:
    written = session.execute(
        update(Job).where(*_is_held(held)).values(**values).returning(Job.id)
    ).one_or_none()
    if written is None:
        raise LeaseLost(f"job {held.job_id}, attempt {held.attempt}")


def _is_held(held: Claim) -> tuple[ColumnElement[bool], ...]:
    return Job.id == held.job_id, Job.attempt == held.attempt, Job.status == JobStatus.RUNNING


def _end(session: Session, job: Job, status: JobStatus) -> None:
    session.execute(delete(EstimateSample).filter_by(job_id=job.id))
    job.status, job.lease_until, job.phase = status, None, None
    job.finished_at = func.now()
