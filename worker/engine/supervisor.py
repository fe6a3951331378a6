"""The parent of a job: claims it, runs it in a child process, keeps its lease, ends it.

The child may use the GPU, crash or be killed; the parent never imports torch.
"""

import contextlib
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from multiprocessing.process import BaseProcess
from typing import Literal
from uuid import UUID

import structlog
from sqlalchemy import exists, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, sessionmaker

from domain import database_errors, jobs
from domain.errors import JobEnded, LeaseLost
from domain.settings import WorkerSettings
from domain.states import RegistrationStatus
from domain.tables import Model
from worker.engine import confinement, forks, lease
from worker.engine.exits import DATABASE_AWAY, DATABASE_FAILED, LEASE_LOST, STOPPED
from worker.engine.lease import Claim
from worker.engine.retrying import transaction
from worker.store import job_checkpoints
from worker.store.artifacts import Store

POLL_S = 0.2
"""How often the parent checks the child and its own orders."""

ASK_S = 1
"""How often it asks Postgres whether it still holds the job, so how soon it sees a cancel."""

GRACE_S = 2
"""How long a child may keep running after its job has ended."""

TRANSFORMERS = ("transformers.models.auto.modeling_auto", "transformers.modeling_utils")
"""What building a network of `transformers` imports: seconds of a processor, and 130 MB."""

KILLED_FOR_MEMORY = (
    "The job's process was killed because the machine's memory ran out. Send fewer samples at "
    "once, or have the operator give the worker more memory, then retry it."
)

log = structlog.get_logger()

How = Literal["ended", "lost", "time_limit", "stopped", "memory"]
"""Why the parent stopped watching a child."""


@dataclass(frozen=True, slots=True)
class Orders:
    """What the worker's process has been told to do."""

    stop: threading.Event = field(default_factory=threading.Event)
    """End soon: the current job may finish its cycle, then goes back to the queue."""

    stop_now: threading.Event = field(default_factory=threading.Event)


def run(
    job_id: UUID,
    sessions: sessionmaker[Session],
    settings: WorkerSettings,
    *,
    worker: str,
    orders: Orders,
) -> bool:
    """Do a job if it can be claimed. Returns when its outcome is stored, or is another worker's.

    Args:
        worker: the name to claim the job under.

    Returns:
        Whether to look no further for now; False only where the job was not to be had.
    """
    if not forks.is_ready(_libraries(sessions)):  # a lease might run out while it imports
        log.error("jobs.cannot_start")
        return True
    if orders.stop.is_set():
        return True
    with sessions.begin() as session:
        held = lease.claim(session, job_id, worker=worker, lease=settings.lease)
    if held is None:
        return False
    log.info("job.started", attempt=held.attempt, kind=held.kind)
    started = time.monotonic()
    store = Store(settings.store, held.signature)
    killed_before = confinement.killed_for_memory()
    try:
        child = _spawn(held)
    except (EOFError, OSError):
        _settle("ended", forks.SERVER_ENDED, held, sessions, settings)
        return True
    try:
        how = _watch(child, held, sessions, settings, orders)
    finally:
        code = forks.end(child)
        store.remove_unfinished()
    if how == "ended" and code == -signal.SIGXCPU:
        how = "time_limit"
    if how == "ended" and code == -signal.SIGKILL:
        how = "memory" if confinement.killed_for_memory() > killed_before else "ended"
    if how != "lost" and code not in (0, LEASE_LOST):
        _settle(how, code, held, sessions, settings)
    job_checkpoints.delete_if_ended(sessions, store, job_id)
    duration_s = round(time.monotonic() - started, 1)
    how = _left(how, code, held, sessions)
    log.info("job.left", attempt=held.attempt, how=how, returncode=code, duration_s=duration_s)
    return True


def _libraries(sessions: sessionmaker[Session]) -> Sequence[str]:
    """What the fork server is to import beside what every job needs: what models are made of."""
    built = exists().where(
        Model.architecture["kind"].astext == "transformers",
        Model.status != RegistrationStatus.DELETED,
    )
    with sessions.begin() as session:
        return TRANSFORMERS if session.scalar(select(built)) else ()


def _spawn(held: Claim) -> BaseProcess:
    """Start the child. It ends by itself when this process dies."""
    return forks.start(_work, str(held.job_id), held.attempt, held.kind.value)


def _work(job_id: str, attempt: int, kind: str) -> None:
    """What the child does."""
    import_module(forks.JOB).main(job_id, attempt, kind)


def _watch(
    child: BaseProcess,
    held: Claim,
    sessions: sessionmaker[Session],
    settings: WorkerSettings,
    orders: Orders,
) -> How:
    """Renew the lease until the child ends or the job is no longer ours."""
    started = asked = renewed = known = time.monotonic()
    told_to_stop: float | None = None
    while True:
        child.join(POLL_S)
        if child.exitcode is not None:
            return "ended" if told_to_stop is None else "stopped"
        now = time.monotonic()
        if now - asked >= ASK_S:
            asked = now
            try:
                if now - renewed >= settings.heartbeat.total_seconds():
                    with _without_waiting(sessions) as session:
                        lease.renew(session, held, lease=settings.lease)
                    renewed = known = now
                elif not _is_held(held, sessions):
                    raise LeaseLost
            except LeaseLost:  # or the child has just stored the job's end, and is about to exit
                child.join(GRACE_S)
                return "lost"
            except DBAPIError as error:  # Postgres is unreachable: the lease may outlast that
                told = database_errors.told(error)
                log.warning("lease.not_renewed", attempt=held.attempt, **told)
                if lease.is_locked(error):  # by the child that stores its outcome, most likely
                    known = now
        if now - known >= settings.lease.total_seconds():
            return "lost"
        if now - started >= settings.job_time_limit.total_seconds():
            return "time_limit"
        if orders.stop_now.is_set():
            return "stopped"
        if orders.stop.is_set():
            if told_to_stop is None:
                told_to_stop = now
                child.terminate()
            elif now - told_to_stop >= settings.stop_grace.total_seconds():
                return "stopped"


def _is_held(held: Claim, sessions: sessionmaker[Session]) -> bool:
    with _without_waiting(sessions) as session:
        return lease.is_held(session, held)


def _left(how: How, code: int, held: Claim, sessions: sessionmaker[Session]) -> How:
    """How the job was left, whatever the parent has seen: one that has just ended and one that went
    to another worker look alike, a child may find out first, and one whose job has ended may be too
    slow to exit."""
    if code == 0:
        return "ended"
    if how != "lost" and code != LEASE_LOST:
        return how
    with _without_waiting(sessions) as session:
        return "ended" if lease.has_ended(session, held) else "lost"


@contextlib.contextmanager
def _without_waiting(sessions: sessionmaker[Session]) -> Iterator[Session]:
    with sessions.begin() as session:
        lease.be_quick(session)
        yield session


def _settle(
    how: How,
    code: int | None,
    held: Claim,
    sessions: sessionmaker[Session],
    settings: WorkerSettings,
) -> None:
    """Store the outcome for a child that could not store its own."""
    try:
        for attempt in transaction(sessions):
            with attempt as session:
                job = lease.hold(session, held)
                if how == "time_limit":
                    reason = (
                        f"The job ran longer than {settings.job_time_limit}, its time limit. Send "
                        "fewer samples at once, or have the operator raise LETHE_JOB_TIME_LIMIT, "
                        "then retry it."
                    )
                    jobs.fail(session, job, actor="worker", kind="time_limit", reason=reason)
                elif how == "memory":
                    jobs.fail(session, job, actor="worker", kind="memory", reason=KILLED_FOR_MEMORY)
                elif how == "stopped" or code == STOPPED:
                    jobs.release(session, job, actor="worker", why="the worker was stopped")
                elif code == DATABASE_AWAY:
                    jobs.release(session, job, actor="worker", why="the database was away")
                elif code == DATABASE_FAILED:
                    why, limit = "the database refused to work", settings.max_losses
                    jobs.lose(
                        session, job, actor="worker", why=why, max_losses=limit, kind="database"
                    )
                else:
                    why = f"its process ended with code {code}"
                    if code == forks.SERVER_ENDED:
                        why = "the fork server, which starts the worker's jobs, ended"
                    if code == -signal.SIGKILL:
                        why += ", killed from outside, perhaps because memory ran out"
                    jobs.lose(session, job, actor="worker", why=why, max_losses=settings.max_losses)
    except JobEnded:
        pass  # the child came to grief after it had stored the outcome
    except LeaseLost:
        log.warning("job.lost", attempt=held.attempt)
