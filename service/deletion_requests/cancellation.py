"""Takes a deletion request back, before it is answered. One function, one transaction."""

from uuid import UUID

from sqlalchemy import ColumnElement, exists, func, select
from sqlalchemy.orm import Session

from domain import jobs, requests, trail
from domain.errors import CannotCancel, no_such
from domain.events import RequestCancelAsked
from domain.requests import PLANNING_LOCK
from domain.states import OPEN_JOBS, OPEN_REQUESTS, JobStatus, RequestStatus, sources
from domain.tables import DeletionRequest, DeletionTarget, Job
from service.dependencies import Sessions


async def cancel(sessions: Sessions, request_id: UUID) -> None:
    """Cancel what is left of a request; nothing, when it was cancelled before.

    A job that runs for it ends at once, and what else it served waits for a new one.

    Raises:
        NotFound: there is no such request.
        CannotCancel: it has been answered, or waits for a decision.
    """
    async with sessions.begin() as session:
        await session.run_sync(_cancel, request_id)


def _cancel(session: Session, request_id: UUID) -> None:
    # With the planner held off, the request's jobs stay its jobs; they are locked as everywhere
    # else: first the jobs, then what they serve.
    session.execute(select(func.pg_advisory_xact_lock(PLANNING_LOCK)))
    serving = session.scalars(
        select(Job)
        .where(
            Job.status.in_(OPEN_JOBS),
            exists().where(
                DeletionTarget.job_id == Job.id, DeletionTarget.request_id == request_id
            ),
        )
        .order_by(Job.id)
        .with_for_update()
    ).all()
    request = session.get(DeletionRequest, request_id)
    if request is None:
        raise no_such(f"deletion request {request_id}", listed_at="/v1/deletion-requests")
    if request.status is RequestStatus.CANCELLED:
        return
    mine = DeletionTarget.request_id == request_id
    _require_cancellable(session, mine, request.status)
    trail.record(session, "api", request_id, RequestCancelAsked())
    for job in serving:
        if job.status is JobStatus.RUNNING or not _serves_others(session, job, request_id):
            jobs.cancel(session, job, actor="api")
    # Out of the job, too: one that goes on for others must not find these samples.
    requests.move(session, RequestStatus.CANCELLED, mine, actor="api", job_id=None)
    for job in serving:
        if job.status is JobStatus.CANCELLED:
            others = DeletionTarget.job_id == job.id
            requests.move(session, RequestStatus.PENDING, others, actor="api", job_id=None)


def _require_cancellable(
    session: Session, mine: ColumnElement[bool], status: RequestStatus
) -> None:
    statuses = set(session.scalars(select(DeletionTarget.status).where(mine)))
    if RequestStatus.NEEDS_REVIEW in statuses:
        raise CannotCancel(
            "This request awaits a decision. To end it, decide `refuse`; its samples then stay in "
            "the model."
        )
    if not statuses.intersection(sources(RequestStatus.CANCELLED)):
        raise CannotCancel(
            f"This request is already {status}, and what was forgotten stays forgotten."
        )


def _serves_others(session: Session, job: Job, request_id: UUID) -> bool:
    others = exists().where(
        DeletionTarget.job_id == job.id,
        DeletionTarget.request_id != request_id,
        DeletionTarget.status.in_(OPEN_REQUESTS),
    )
    return bool(session.scalar(select(others)))
