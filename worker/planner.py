"""The sweep: what Postgres says should happen next, whatever became of the doorbells.

Idempotent, and one at a time under an advisory lock.
"""

from uuid import UUID

from sqlalchemy import delete, exists, func, select
from sqlalchemy.orm import Session, sessionmaker

from service import audit, progress
from service.states import OPEN_JOBS, JobKind, JobStatus, Objective, RequestStatus
from service.tables import DeletionRequest, DeletionTarget, EstimateSample, Job
from worker import protocol, webhooks

SWEEP_LOCK = 0x1E7E
"""The advisory lock that only one sweep holds."""


def sweep(sessions: sessionmaker[Session], *, max_losses: int) -> list[UUID]:
    """Free expired leases and plan waiting requests; the ids of all queued jobs, oldest first."""
    with sessions.begin() as session:
        if not session.scalar(select(func.pg_try_advisory_xact_lock(SWEEP_LOCK))):
            return []
        free_expired(session, max_losses=max_losses)
        plan(session)
        drop_estimated(session)
        webhooks.forget_old(session)
        return list(
            session.scalars(
                select(Job.id).where(Job.status == JobStatus.QUEUED).order_by(Job.created_at)
            )
        )


def free_expired(session: Session, *, max_losses: int) -> None:
    """Take jobs from workers whose lease ran out."""
    silent = select(Job).where(Job.status == JobStatus.RUNNING, Job.lease_until < func.now())
    for job in session.scalars(silent.with_for_update(skip_locked=True)):
        protocol.lose(session, job, why="its lease ran out", max_losses=max_losses)


def drop_estimated(session: Session) -> None:
    """Delete the ids named to estimates that no open job needs, if any are left behind."""
    needed = exists().where(Job.id == EstimateSample.job_id, Job.status.in_(OPEN_JOBS))
    session.execute(delete(EstimateSample).where(~needed))


def plan(session: Session) -> None:
    """Put the waiting requests of each model into one job, if none runs for it already.

    A job has one objective; requests with another one wait for the next job. One that asks for an
    exact job gets it, and those that share the job get no less.
    """
    waiting = session.execute(
        select(DeletionTarget.model_id, DeletionRequest.objective)
        .join(DeletionRequest, DeletionRequest.id == DeletionTarget.request_id)
        .where(DeletionTarget.status == RequestStatus.PENDING)
        .group_by(DeletionTarget.model_id, DeletionRequest.objective)
        .order_by(func.min(DeletionRequest.created_at))
    ).all()
    jobs = (_open_job(session, model_id, objective) for model_id, objective in waiting)
    _schedule(session, [job.id for job in jobs if job is not None])


def _open_job(session: Session, model_id: UUID, objective: Objective) -> Job | None:
    """The model's queued job with this objective, or a new one; None while another is open."""
    job = session.scalars(
        select(Job)
        .where(Job.model_id == model_id, Job.status.in_(OPEN_JOBS), Job.kind != JobKind.ESTIMATE)
        .with_for_update()
    ).one_or_none()
    if job is None:
        job = Job(kind=JobKind.UNLEARN, model_id=model_id, objective=objective)
        session.add(job)
        session.flush()
        audit.record(session, "worker", "job.queued", job.id, model=str(model_id))
    elif job.status is not JobStatus.QUEUED or job.objective is not objective:
        return None
    return job


def _schedule(session: Session, jobs: list[UUID]) -> None:
    """Give these jobs what waits for them; in one step, so that requests are locked in one order.

    Else a request to two models could be waited for here and in a job that ends, in a circle.
    """
    job = (
        select(Job.id)
        .join(DeletionRequest, DeletionRequest.objective == Job.objective)
        .where(
            Job.id.in_(jobs),
            Job.model_id == DeletionTarget.model_id,
            DeletionRequest.id == DeletionTarget.request_id,
        )
        .correlate(DeletionTarget)
        .scalar_subquery()
    )
    progress.move(
        session,
        RequestStatus.SCHEDULED,
        DeletionTarget.status == RequestStatus.PENDING,
        job.is_not(None),
        actor="worker",
        job_id=job,
    )
