"""Who has a job, and what may be written about it.

Every write names the attempt that was claimed; once another worker has the job it fails with
`LeaseLost`. The attempt number is the fencing token, the lease only decides when to hand over.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, case, func, select, update
from sqlalchemy.orm import Session

from service import audit
from service.errors import LeaseLost
from service.states import (
    OPEN_REQUESTS,
    JobKind,
    JobStatus,
    RegistrationStatus,
    RequestStatus,
    sources,
)
from service.tables import Dataset, DeletionRequest, DeletionTarget, Job, Model


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to work on a job, valid until the lease runs out."""

    job_id: UUID
    attempt: int
    kind: JobKind


def claim(session: Session, job_id: UUID, *, worker: str, lease: timedelta) -> Claim | None:
    """Take a queued job; None when it is taken, has ended, or never was.

    A job whose worker fell silent is put back into the queue by the sweep, which counts the loss.
    """
    taken = session.execute(
        update(Job)
        .where(Job.id == job_id, Job.status == JobStatus.QUEUED)
        .values(
            status=JobStatus.RUNNING,
            attempt=Job.attempt + 1,
            worker=worker,
            lease_until=func.now() + lease,
            started_at=func.coalesce(Job.started_at, func.now()),
            progress=0.0,
            phase="starting",
        )
        .returning(Job.attempt, Job.kind)
    ).one_or_none()
    if taken is None:
        return None
    audit.record(session, "worker", "job.started", job_id, attempt=taken.attempt)
    move_requests(session, job_id, RequestStatus.RUNNING)
    return Claim(job_id, taken.attempt, taken.kind)


def renew(session: Session, held: Claim, *, lease: timedelta) -> None:
    """Keep the job for another lease.

    Raises:
        LeaseLost: somebody else has it, or it has ended.
    """
    _write(session, held, lease_until=func.now() + lease)


def report(session: Session, held: Claim, *, phase: str, progress: float) -> None:
    """Say how far the job is. Raises LeaseLost as `renew` does."""
    _write(session, held, phase=phase, progress=progress)


def hold(session: Session, held: Claim) -> Job:
    """The job's row, locked until the transaction ends: the start of every final transaction.

    Raises:
        LeaseLost: somebody else has the job, or it has ended.
    """
    job = session.scalars(
        select(Job)
        .where(Job.id == held.job_id, Job.attempt == held.attempt, Job.status == JobStatus.RUNNING)
        .with_for_update()
    ).one_or_none()
    if job is None:
        raise LeaseLost(f"job {held.job_id}, attempt {held.attempt}")
    return job


def complete(session: Session, job: Job) -> None:
    """End a held job well, and with it what it served."""
    _end(job, JobStatus.COMPLETED)
    job.progress = 1.0
    audit.record(session, "worker", "job.completed", job.id, attempt=job.attempt)
    move_requests(session, job.id, RequestStatus.COMPLETED)


def fail(session: Session, job: Job, *, kind: str, reason: str) -> None:
    """End a held job badly: what it served fails with it, the champion stays."""
    _end(job, JobStatus.FAILED)
    job.failure = {"kind": kind, "reason": reason}
    audit.record(session, "worker", "job.failed", job.id, attempt=job.attempt, kind=kind)
    move_requests(session, job.id, RequestStatus.FAILED)
    if job.kind is JobKind.INDEX_DATASET:
        dataset = session.get_one(Dataset, job.dataset_id)
        dataset.status, dataset.failure = RegistrationStatus.FAILED, reason
        audit.record(session, "worker", "dataset.failed", dataset.id, job=str(job.id))
    elif job.kind is JobKind.REGISTER_MODEL:
        model = session.get_one(Model, job.model_id)
        model.status, model.failure = RegistrationStatus.FAILED, reason
        audit.record(session, "worker", "model.failed", model.id, job=str(job.id))


def release(session: Session, job: Job, *, why: str) -> None:
    """Give a held job back to the queue: its worker stops in good order."""
    job.status, job.lease_until, job.phase = JobStatus.QUEUED, None, "waiting for a worker"
    audit.record(session, "worker", "job.released", job.id, attempt=job.attempt, why=why)
    move_requests(session, job.id, RequestStatus.SCHEDULED)


def lose(session: Session, job: Job, *, why: str, max_losses: int) -> None:
    """Give a job back after its worker was lost; fail it when that has happened too often."""
    job.losses += 1
    if job.losses < max_losses:
        release(session, job, why=why)
        return
    reason = f"Its worker was lost {job.losses} times, last: {why}. It is not tried again."
    fail(session, job, kind="worker_lost", reason=reason)


def move_requests(session: Session, job_id: UUID, status: RequestStatus) -> None:
    """Take the targets a job serves one lawful step on, and their requests with them."""
    moved = session.scalars(
        update(DeletionTarget)
        .where(DeletionTarget.job_id == job_id, DeletionTarget.status.in_(sources(status)))
        .values(status=status)
        .returning(DeletionTarget.request_id)
    ).all()
    sum_up(session, moved)


def sum_up(session: Session, request_ids: Collection[UUID]) -> None:
    """Bring requests to the status their targets add up to, with one audit event for each change.

    While a target is open the request is as far as the furthest that a job works on or has worked
    on; when none is, it has failed if one has, and is completed otherwise.
    """
    # Locked first, in one order: jobs of two models may end targets of one request at once, and
    # the later of them must see what the earlier one stored.
    session.execute(
        select(DeletionRequest.id)
        .where(DeletionRequest.id.in_(request_ids))
        .order_by(DeletionRequest.id)
        .with_for_update()
    )
    total = (
        select(DeletionTarget.request_id, _sum_of_targets().label("status"))
        .where(DeletionTarget.request_id.in_(request_ids))
        .group_by(DeletionTarget.request_id)
        .subquery()
    )
    ended = total.c.status.not_in([status.value for status in OPEN_REQUESTS])
    changed = session.execute(
        update(DeletionRequest)
        .where(DeletionRequest.id == total.c.request_id, DeletionRequest.status != total.c.status)
        .values(status=total.c.status, finished_at=case((ended, func.now()), else_=None))
        .returning(DeletionRequest.id, DeletionRequest.status)
    ).all()
    for request_id, now in changed:
        audit.record(session, "worker", f"request.{now}", request_id)


def _sum_of_targets() -> ColumnElement[str]:
    """The status that all targets of a request add up to."""
    status = DeletionTarget.status
    at_work = status == RequestStatus.RUNNING
    worked_on = status.in_([RequestStatus.COMPLETED, RequestStatus.FAILED])
    return case(
        (
            func.bool_and(status.not_in(OPEN_REQUESTS)),
            case(
                (func.bool_or(status == RequestStatus.FAILED), RequestStatus.FAILED.value),
                else_=RequestStatus.COMPLETED.value,
            ),
        ),
        (
            func.bool_or(at_work | (worked_on & DeletionTarget.job_id.is_not(None))),
            RequestStatus.RUNNING.value,
        ),
        (func.bool_or(status == RequestStatus.SCHEDULED), RequestStatus.SCHEDULED.value),
        else_=RequestStatus.PENDING.value,
    )


def _write(session: Session, held: Claim, **values: Any) -> None:
    written = session.execute(
        update(Job)
        .where(Job.id == held.job_id, Job.attempt == held.attempt, Job.status == JobStatus.RUNNING)
        .values(**values)
        .returning(Job.id)
    ).one_or_none()
    if written is None:
        raise LeaseLost(f"job {held.job_id}, attempt {held.attempt}")


def _end(job: Job, status: JobStatus) -> None:
    job.status, job.lease_until, job.phase = status, None, None
    job.finished_at = func.now()
