"""A job's life: queued, started, ended, and meanwhile given back as often as it takes.

Each step is one function, in the caller's transaction: it changes the row, tells the audit trail,
and takes what the job serves along. Who changes a job that exists holds its row locked.
"""

import re
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Row,
    Uuid,
    delete,
    exists,
    func,
    literal,
    or_,
    select,
    update,
)
from sqlalchemy.orm import Session

from domain import erasure, trail
from domain import requests as deletion_requests
from domain.events import (
    DatasetFailed,
    JobCancelled,
    JobCompleted,
    JobFailed,
    JobQueued,
    JobReleased,
    JobRetried,
    JobStarted,
    ModelFailed,
)
from domain.states import JobKind, JobStatus, Objective, RegistrationStatus, RequestStatus
from domain.tables import (
    Dataset,
    DatasetState,
    DeletionTarget,
    EstimateSample,
    Job,
    Model,
    VersionRegistration,
)
from domain.trail import Actor
from domain.version_events import DatasetStateFailed, VersionFailed

FIRST_WAIT = timedelta(seconds=10)
"""Before an attempt after one that found the machine at fault."""

LONGEST_WAIT = timedelta(seconds=30)
"""Before each one after that."""

WAITING = frozenset({"storage", "database"})
"""Kinds of failure after which a job waits: what is full now will be full in a second."""

IN_QUEUE = "waiting for a worker"

LONGEST_REASON = 2_000
"""Characters of a reason: it may quote a file, and so be of any length."""

UNSHOWN = re.compile(
    "[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]"
)
"""What Postgres does not store, or what changes how the text around it looks: control characters,
those that turn the direction of writing, and halves of characters."""


def storable(reason: str) -> str:
    """A reason as it can be stored and shown, whatever the text that it quotes contains.

    Of a long one the middle is left out: what went wrong stands at its beginning, and what to do at
    its end.
    """
    if len(reason) > 2 * LONGEST_REASON:  # what is left out need not be looked at
        reason = f"{reason[:LONGEST_REASON]}{reason[-LONGEST_REASON:]}"
    shown = UNSHOWN.sub(lambda found: found[0].encode("unicode_escape").decode(), reason)
    if len(shown) <= LONGEST_REASON:
        return shown
    half = (LONGEST_REASON - 3) // 2
    return f"{shown[:half]} … {shown[-half:]}"


def queue(
    session: Session,
    kind: JobKind,
    *,
    actor: Actor,
    model_id: UUID | None = None,
    dataset_id: UUID | None = None,
    objective: Objective | None = None,
    accepted_job_id: UUID | None = None,
) -> Job:
    """A new job for a model or for a dataset, stored. The doorbell is rung after the commit."""
    session.flush()  # a model has one open job at most: the one before it may have just ended
    job = Job(
        kind=kind,
        model_id=model_id,
        dataset_id=dataset_id,
        objective=objective,
        accepted_job_id=accepted_job_id,
    )
    session.add(job)
    session.flush()
    trail.record(
        session,
        actor,
        job.id,
        JobQueued(model=model_id, dataset=dataset_id, accepted_job=accepted_job_id),
    )
    if kind is JobKind.ERASE_ROWS:
        erasure.wait(session, dataset_id)
    return job


def is_ready() -> tuple[ColumnElement[bool], ...]:
    """The conditions on a job that waits for a worker."""
    due = or_(Job.not_before.is_(None), Job.not_before <= func.now())
    return Job.status == JobStatus.QUEUED, due


def start(
    session: Session, job_id: UUID, *, actor: Actor, worker: str, lease: timedelta
) -> Row[int, JobKind] | None:
    """Begin the next attempt of a job that is ready: its number, and the kind of the job.

    None when somebody else has the job, it has ended, is to wait, or never was.
    """
    started = session.execute(
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
    if started is not None:
        trail.record(session, actor, job_id, JobStarted(attempt=started.attempt))
        move_requests(session, job_id, RequestStatus.RUNNING, actor=actor)
    return started


def complete(
    session: Session,
    job: Job,
    *,
    actor: Actor,
    requests: RequestStatus = RequestStatus.COMPLETED,
    acceptance: str | None = None,
) -> None:
    """End a job well.

    Args:
        requests: what becomes of those it served: completed, or a person is to decide.
        acceptance: what became of the acceptance that it was to make good, as the trail says it.
    """
    _end(session, job, JobStatus.COMPLETED)
    job.progress = 1.0
    completed = JobCompleted(attempt=job.attempt, verdict=job.verdict, acceptance=acceptance)
    trail.record(session, actor, job.id, completed)
    move_requests(session, job.id, requests, actor=actor)


def fail(session: Session, job: Job, *, actor: Actor, kind: str, reason: str) -> None:
    """End a job badly: what it served fails with it, the champion stays."""
    reason = storable(reason)
    _end(session, job, JobStatus.FAILED)
    job.failure = {"kind": kind, "reason": reason}
    trail.record(session, actor, job.id, JobFailed(attempt=job.attempt, kind=kind))
    move_requests(session, job.id, RequestStatus.FAILED, actor=actor)
    if job.kind is JobKind.ERASE_ROWS:
        session.flush()
        erasure.fail(session, job, actor=actor)
    elif job.kind is JobKind.INDEX_DATASET:
        dataset = session.get_one(Dataset, job.dataset_id)
        dataset.status, dataset.failure = RegistrationStatus.FAILED, reason
        trail.record(session, actor, dataset.id, DatasetFailed(job=job.id))
    elif job.kind is JobKind.REGISTER_MODEL:
        model = session.get_one(Model, job.model_id)
        model.status, model.failure = RegistrationStatus.FAILED, reason
        trail.record(session, actor, model.id, ModelFailed(job=job.id))
    elif job.kind is JobKind.INDEX_STATE:
        wanted = session.scalars(select(DatasetState).filter_by(job_id=job.id)).one()
        wanted.status, wanted.failure = RegistrationStatus.FAILED, reason
        refused = DatasetStateFailed(state=wanted.id, job=job.id)
        trail.record(session, actor, wanted.dataset_id, refused)
    elif job.kind is JobKind.REGISTER_VERSION:
        mine = select(VersionRegistration).filter_by(job_id=job.id)
        offered = session.scalars(mine).one()
        offered.status, offered.failure = RegistrationStatus.FAILED, reason
        failed = VersionFailed(registration=offered.id, job=job.id)
        trail.record(session, actor, offered.model_id, failed)


def cancel(session: Session, job: Job, *, actor: Actor) -> None:
    """End a job because nobody wants it any more; what it serves is left to the caller.

    From here on its worker is refused every write; it looks every second, and stops.
    """
    _end(session, job, JobStatus.CANCELLED)
    session.flush()
    trail.record(session, actor, job.id, JobCancelled(attempt=job.attempt))


def release(
    session: Session,
    job: Job,
    *,
    actor: Actor,
    why: str,
    kind: str | None = None,
    wait: timedelta | None = None,
) -> None:
    """Give a running job back to the queue; by itself that costs it nothing.

    Args:
        kind: the class of what went wrong, where the attempt counts as lost.
        wait: how long nobody is to take it.
    """
    job.status, job.lease_until, job.phase = JobStatus.QUEUED, None, IN_QUEUE
    if wait is not None:
        job.not_before = func.now() + wait
    told = JobReleased(attempt=job.attempt, why=storable(why), kind=kind)
    trail.record(session, actor, job.id, told)
    move_requests(session, job.id, RequestStatus.SCHEDULED, actor=actor)


def lose(
    session: Session,
    job: Job,
    *,
    actor: Actor,
    why: str,
    max_losses: int,
    kind: str = "worker_lost",
) -> None:
    """Give a job back after an attempt was lost; fail it when that has happened too often.

    Args:
        why: as the end of "the last time because …", for people.
        kind: the class of what went wrong, should the job fail with it.
    """
    job.losses += 1
    if job.losses < max_losses:
        longer = min(FIRST_WAIT * 3 ** min(job.losses - 1, 9), LONGEST_WAIT)
        wait = longer if kind in WAITING else None
        release(session, job, actor=actor, why=why, kind=kind, wait=wait)
        return
    reason = (
        f"{job.losses} attempts were lost, the last because {why}. When that is mended, "
        f"`POST /v1/jobs/{job.id}/retry` has it tried again."
    )
    fail(session, job, actor=actor, kind=kind, reason=reason)


def requeue(session: Session, job: Job, *, actor: Actor) -> None:
    """Put a failed job back into the queue, with all its attempts before it; what failed with it is
    left to the caller."""
    failure = job.failure or {}
    job.status, job.failure, job.finished_at = JobStatus.QUEUED, None, None
    job.losses, job.not_before, job.phase = 0, None, IN_QUEUE
    session.flush()
    trail.record(session, actor, job.id, JobRetried(attempt=job.attempt, kind=failure["kind"]))
    if job.kind is JobKind.ERASE_ROWS:
        erasure.wait(session, job.dataset_id)


def move_requests(session: Session, job_id: UUID, status: RequestStatus, *, actor: Actor) -> None:
    """Take the targets a job serves one lawful step on, and their requests with them."""
    served = DeletionTarget.job_id == job_id
    deletion_requests.move(session, status, served, actor=actor, job_id=job_id)


def is_rewritten(session: Session, job: Job, *, since: datetime) -> bool:
    """Whether rows of the job's dataset are being erased, or another state of it is being indexed,
    or were since then, by another job."""
    of_model = select(Model.dataset_id).where(Model.id == job.model_id).scalar_subquery()
    erasing = exists().where(
        Job.kind.in_([JobKind.ERASE_ROWS, JobKind.INDEX_STATE]),
        Job.id != job.id,
        Job.dataset_id == func.coalesce(literal(job.dataset_id, Uuid), of_model),
        Job.attempt > 0,
        or_(Job.finished_at.is_(None), Job.finished_at >= since),
    )
    return bool(session.scalar(select(erasing)))


def _end(session: Session, job: Job, status: JobStatus) -> None:
    """However a job ends, the ids that an estimate named go with it."""
    session.execute(delete(EstimateSample).filter_by(job_id=job.id))
    job.status, job.lease_until, job.phase = status, None, None
    job.finished_at = func.now()
