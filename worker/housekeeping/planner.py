"""The sweep: does what Postgres says should happen next, even if doorbells were lost.

Idempotent; an advisory lock admits one process at a time.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    Boolean,
    Row,
    Uuid,
    column,
    delete,
    exists,
    func,
    or_,
    select,
    update,
    values,
)
from sqlalchemy.orm import Session, sessionmaker

from domain import batching, erasure, jobs, outbox, requests, trail, urgency
from domain.events import JobStarted, RequestCompleted, RequestOverdue
from domain.policy import Policy
from domain.requests import PLANNING_LOCK
from domain.states import (
    BESIDE_OTHERS,
    OPEN_JOBS,
    OPEN_REQUESTS,
    JobKind,
    JobStatus,
    RequestStatus,
)
from domain.tables import (
    AuditEvent,
    Dataset,
    DeletionRequest,
    DeletionTarget,
    EstimateSample,
    Job,
    LogLeaf,
    Model,
)
from worker.housekeeping import purge_planner

LONGEST_TRANSACTION = timedelta(minutes=10)
"""Upper bound on the delay between the end of a request and its visibility to others."""

AT_ONCE = 800
"""Requests that one sweep puts into jobs, so that it stays short; the next sweep continues."""


def sweep(sessions: sessionmaker[Session], *, max_losses: int) -> list[UUID]:
    """Free expired leases, plan waiting requests and due purges; the ids of jobs to take, the most
    urgent first.

    Returns nothing while another sweep is running, or someone cancels or retries.
    """
    with sessions.begin() as session:
        if not session.scalar(select(func.pg_try_advisory_xact_lock(PLANNING_LOCK))):
            return []
        free_expired(session, max_losses=max_losses)
        mark_overdue(session)
        plan(session)
        plan_erasures(session)
        drop_estimated(session)
        purge_planner.plan(session)
        return urgency.ready(session)


def free_expired(session: Session, *, max_losses: int) -> None:
    """Take jobs away from workers whose lease ran out."""
    silent = select(Job).where(Job.status == JobStatus.RUNNING, Job.lease_until < func.now())
    for job in session.scalars(silent.with_for_update(skip_locked=True)):
        jobs.lose(session, job, actor="worker", why="its lease ran out", max_losses=max_losses)


def drop_estimated(session: Session) -> None:
    """Delete sample ids of estimates that no open job needs, if any were left behind."""
    needed = exists().where(Job.id == EstimateSample.job_id, Job.status.in_(OPEN_JOBS))
    session.execute(delete(EstimateSample).where(~needed))


def mark_overdue(session: Session) -> None:
    """Record, once per request, that its due date passed before it was answered."""
    unanswered = DeletionRequest.status.in_([*OPEN_REQUESTS, RequestStatus.FAILED])
    late = session.scalars(
        update(DeletionRequest)
        .where(
            unanswered, DeletionRequest.due_at < func.now(), DeletionRequest.overdue_at.is_(None)
        )
        .values(overdue_at=func.now())
        .returning(DeletionRequest.id)
        .execution_options(synchronize_session=False)
    ).all()
    trail.record_each(session, "worker", [(each, RequestOverdue()) for each in late])
    outbox.announce(session, "overdue", late)


def plan_erasures(session: Session) -> None:
    """Queue the erasure of rows from datasets that ask for it, once requests are completed.

    One job per dataset at a time; what is completed after it began is left to the next. The log
    decides which came first: its order is the order of commits.
    """
    of_dataset = (Job.dataset_id == Dataset.id, Job.kind == JobKind.ERASE_ROWS)
    began = (
        select(func.coalesce(func.max(LogLeaf.position), -1))
        .join(AuditEvent, AuditEvent.id == LogLeaf.event_id)
        .join(Job, Job.id == AuditEvent.subject_id)
        .where(*of_dataset, AuditEvent.event == JobStarted.event)
        .correlate(Dataset)
        .scalar_subquery()
    )
    newest = func.coalesce(
        select(func.max(Job.created_at)).where(*of_dataset).scalar_subquery(), Dataset.created_at
    )
    waiting = select(Dataset.id).where(
        erasure.wants_rows_erased(),
        ~exists().where(*of_dataset, Job.status.in_(OPEN_JOBS)),
        ~exists().where(
            Job.dataset_id == Dataset.id,
            Job.kind == JobKind.INDEX_STATE,
            Job.status.in_(OPEN_JOBS),
        ),
        exists().where(
            DeletionRequest.dataset_id == Dataset.id,
            DeletionRequest.status == RequestStatus.COMPLETED,
            DeletionRequest.finished_at > newest - LONGEST_TRANSACTION,
            AuditEvent.subject_id == DeletionRequest.id,
            AuditEvent.event == RequestCompleted.event,
            LogLeaf.event_id == AuditEvent.id,
            LogLeaf.position > began,
        ),
    )
    for dataset_id in session.scalars(waiting).all():
        jobs.queue(session, JobKind.ERASE_ROWS, actor="worker", dataset_id=dataset_id)


@dataclass(frozen=True, slots=True)
class _Job:
    """A job that requests may join, and how many more samples they may name in total."""

    id: UUID
    room: int
    empty: bool


def plan(session: Session) -> None:
    """Put the waiting requests of each model into one job, if none runs for it already.

    Requests wait until the first of them need not, or until they fill a job; but they may join one
    that is queued already. A job has one objective; requests with another one wait for the next
    job. A request that asks for an exact job gets one, and those that share the job benefit too.
    What a person accepted and is to be made anew comes first, in a job without any other: the
    acceptance covers no more. What names former samples waits for a version that was trained
    without them. While reference models are trained, requests wait for them, unless one is urgent
    or due soon: then the job does without.
    """
    filled = []
    for waiting in _waiting(session):
        most = Policy.model_validate(waiting.policy).batch.max_samples
        may_begin = waiting.over or waiting.samples >= most
        job = _open_job(session, waiting, most, may_begin=may_begin)
        if job is not None:
            filled.append(job)
    if filled:
        _schedule(session, filled)


def _waiting(session: Session) -> Sequence[Row[Any]]:
    """What waits for each model, objective and acceptance: what was accepted first, then what is
    due first, then what waits longest."""
    counted = (
        select(
            DeletionTarget.model_id,
            DeletionTarget.accepted_job_id,
            DeletionRequest.objective,
            func.sum(DeletionRequest.samples).label("samples"),
            func.bool_or(batching.is_over()).label("over"),
            func.bool_or(batching.is_pressing()).label("pressing"),
            func.min(urgency.due()).label("due"),
            func.min(DeletionRequest.created_at).label("oldest"),
        )
        .join(DeletionRequest, DeletionRequest.id == DeletionTarget.request_id)
        .where(DeletionTarget.status == RequestStatus.PENDING, DeletionTarget.former == 0)
        .group_by(
            DeletionTarget.model_id, DeletionTarget.accepted_job_id, DeletionRequest.objective
        )
        .subquery()
    )
    return session.execute(
        select(
            counted.c.model_id,
            counted.c.accepted_job_id,
            counted.c.objective,
            Model.policy,
            counted.c.samples,
            counted.c.over,
            counted.c.pressing,
        )
        .join(Model, Model.id == counted.c.model_id)
        .order_by(counted.c.accepted_job_id.is_(None), counted.c.due, counted.c.oldest)
    ).all()


def _open_job(
    session: Session, waiting: Row[Any], max_samples: int, *, may_begin: bool
) -> _Job | None:
    """The model's queued job for what waits, or a new one if it may begin; None while another is
    open.

    A job that was tried before counts as running: it resumes where it was, with the samples it
    began with.
    """
    job = session.scalars(
        select(Job)
        .where(
            Job.model_id == waiting.model_id,
            Job.status.in_(OPEN_JOBS),
            Job.kind.not_in(BESIDE_OTHERS),
        )
        .with_for_update()
    ).one_or_none()
    if job is None and not may_begin:
        return None
    if job is None and not waiting.pressing and _trains_references(session, waiting.model_id):
        return None
    if job is None:
        job = jobs.queue(
            session,
            JobKind.UNLEARN,
            actor="worker",
            model_id=waiting.model_id,
            objective=waiting.objective,
            accepted_job_id=waiting.accepted_job_id,
        )
        return _Job(job.id, max_samples, empty=True)
    same = (job.objective, job.accepted_job_id) == (waiting.objective, waiting.accepted_job_id)
    if job.status is not JobStatus.QUEUED or job.attempt or not same:
        return None
    taken = session.scalar(
        select(func.sum(DeletionRequest.samples))
        .join(DeletionTarget, DeletionTarget.request_id == DeletionRequest.id)
        .where(DeletionTarget.job_id == job.id)
    )
    return _Job(job.id, max_samples - (taken or 0), empty=not taken)


def _trains_references(session: Session, model_id: UUID) -> bool:
    """Whether reference models are being trained for it, or will be."""
    training = exists().where(
        Job.model_id == model_id,
        Job.kind == JobKind.TRAIN_REFERENCES,
        Job.status.in_(OPEN_JOBS),
    )
    return bool(session.scalar(select(training)))


def _schedule(session: Session, filled: Sequence[_Job]) -> None:
    """Assign to these jobs what waits for them, in one step, so that requests are always locked in
    the same order.

    Otherwise a request to two models could cause a deadlock with a job that is ending.
    """
    room = values(
        column("job_id", Uuid), column("room", BigInteger), column("is_empty", Boolean), name="room"
    ).data([(job.id, job.room, job.empty) for job in filled])
    place = func.row_number().over(
        partition_by=room.c.job_id, order_by=(urgency.due(), DeletionRequest.id)
    )
    first = (
        select(
            room,
            DeletionTarget.request_id,
            DeletionTarget.model_id,
            DeletionRequest.samples,
            place.label("place"),
        )
        .select_from(room)
        .join(Job, Job.id == room.c.job_id)
        .join(DeletionTarget, DeletionTarget.model_id == Job.model_id)
        .join(DeletionRequest, DeletionRequest.id == DeletionTarget.request_id)
        .where(
            DeletionTarget.status == RequestStatus.PENDING,
            DeletionTarget.former == 0,
            DeletionRequest.objective == Job.objective,
            DeletionTarget.accepted_job_id.is_not_distinct_from(Job.accepted_job_id),
        )
        .subquery()
    )
    upto = func.sum(first.c.samples).over(partition_by=first.c.job_id, order_by=first.c.place)
    waiting = (
        select(
            first.c.request_id,
            first.c.model_id,
            first.c.job_id,
            or_(upto <= first.c.room, first.c.is_empty & (first.c.place == 1)).label("fits"),
        )
        .where(first.c.place <= max(AT_ONCE // len(filled), 1))
        .subquery()
    )
    requests.move(
        session,
        RequestStatus.SCHEDULED,
        DeletionTarget.request_id == waiting.c.request_id,
        DeletionTarget.model_id == waiting.c.model_id,
        waiting.c.fits,
        actor="worker",
        job_id=waiting.c.job_id,
    )
