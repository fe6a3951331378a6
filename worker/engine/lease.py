"""Which worker has a job, and for how long. How jobs end is in `domain.jobs`.

Every write names the claimed attempt, and fails with `LeaseLost` once another worker has the job.
The attempt number is the fencing token; the lease only decides when to hand over.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from psycopg.errors import LockNotAvailable
from sqlalchemy import ColumnElement, exists, func, select, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from domain import jobs
from domain.errors import JobEnded, LeaseLost
from domain.states import JobKind, JobStatus
from domain.tables import Job

ENDED = (JobStatus.COMPLETED, JobStatus.FAILED)
"""How an attempt ends its job; to cancel one is for others."""


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to work on a job, valid until the lease runs out."""

    job_id: UUID
    attempt: int
    kind: JobKind

    @property
    def signature(self) -> str:
        """The name that this attempt's unfinished files carry."""
        return f"{self.job_id}-{self.attempt}"


def claim(session: Session, job_id: UUID, *, worker: str, lease: timedelta) -> Claim | None:
    """Claim a queued job; None when it is taken, has ended, must wait, or does not exist.

    The sweep puts a job whose worker went silent back into the queue and counts the loss.
    """
    started = jobs.start(session, job_id, actor="worker", worker=worker, lease=lease)
    return None if started is None else Claim(job_id, started.attempt, started.kind)


def renew(session: Session, held: Claim, *, lease: timedelta) -> None:
    """Renew the lease.

    Raises:
        LeaseLost: another worker has the job, or it has ended.
    """
    _write(session, held, lease_until=func.now() + lease)


def report(session: Session, held: Claim, *, phase: str, progress: float) -> None:
    """Store how far the job is. Raises LeaseLost as `renew` does."""
    _write(session, held, phase=phase, progress=progress)


def is_held(session: Session, held: Claim) -> bool:
    """Whether the job still belongs to this attempt and has not been cancelled."""
    return bool(session.scalar(select(exists().where(*_is_held(held)))))


def has_ended(session: Session, held: Claim) -> bool:
    """Whether this very attempt has completed or failed the job."""
    return bool(session.scalar(select(exists().where(*_is_of(held), Job.status.in_(ENDED)))))


def hold(session: Session, held: Claim) -> Job:
    """The job's row, locked until the transaction ends: the start of every final transaction.

    Raises:
        JobEnded: this attempt has completed or failed it, in a commit that was not acknowledged.
        LeaseLost: another worker has the job, or it was cancelled.
    """
    mine = select(Job).filter_by(id=held.job_id, attempt=held.attempt)
    job = session.scalars(mine.with_for_update()).one_or_none()
    if job is not None and job.status is JobStatus.RUNNING:
        return job
    ended = job is not None and job.status in ENDED
    raise (JobEnded if ended else LeaseLost)(f"job {held.job_id}, attempt {held.attempt}")


def be_quick(session: Session) -> None:
    """From here on, the transaction fails where it would have to wait: whoever keeps a lease does
    not wait for a job that has locked its own row. See `is_locked`."""
    session.execute(QUICKLY)


def is_locked(error: DBAPIError) -> bool:
    """Whether another transaction holds what was asked for. Where that is a job's row, nobody can
    take the job meanwhile: the sweep leaves locked rows alone."""
    return isinstance(error.orig, LockNotAvailable)


QUICKLY = select(
    func.set_config("lock_timeout", "1s", True), func.set_config("statement_timeout", "10s", True)
)


def _write(session: Session, held: Claim, **values: Any) -> None:
    written = session.execute(
        update(Job).where(*_is_held(held)).values(**values).returning(Job.id)
    ).one_or_none()
    if written is None:
        raise LeaseLost(f"job {held.job_id}, attempt {held.attempt}")


def _is_held(held: Claim) -> tuple[ColumnElement[bool], ...]:
    return *_is_of(held), Job.status == JobStatus.RUNNING


def _is_of(held: Claim) -> tuple[ColumnElement[bool], ...]:
    return Job.id == held.job_id, Job.attempt == held.attempt
