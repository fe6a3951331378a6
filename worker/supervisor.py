"""The parent of a job: claims it, runs it in a child process, keeps its lease, ends it.

The child may use the GPU, crash or be killed; the parent never imports torch.
"""

import contextlib
import signal
import subprocess
import sys
import threading
import time
from typing import Literal
from uuid import UUID

import structlog
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session, sessionmaker

from service.errors import LeaseLost
from service.settings import WorkerSettings
from worker import protocol
from worker.protocol import Claim

POLL_S = 0.2
"""How often the parent looks at the child and at its own orders."""

GRACE_S = 2
"""How long a child may run on after its job has ended."""

log = structlog.get_logger()

How = Literal["ended", "lost", "time_limit", "stopped"]
"""Why watching a child came to an end."""


def run(
    job_id: UUID,
    sessions: sessionmaker[Session],
    settings: WorkerSettings,
    *,
    worker: str,
    stop: threading.Event,
) -> None:
    """Do a job if it can be had. Returns when its outcome is stored, or somebody else's to store.

    Args:
        worker: the name to sign with.
        stop: set when this process should end soon; the job is then given back.
    """
    with sessions.begin() as session:
        held = protocol.claim(session, job_id, worker=worker, lease=settings.lease)
    if held is None:
        return
    log.info("job.started", attempt=held.attempt, kind=held.kind)
    started = time.monotonic()
    child = _spawn(held)
    try:
        how = _watch(child, held, sessions, settings, stop)
    finally:
        child.kill()
        code = child.wait()
    if how in ("time_limit", "stopped") or (how == "ended" and code != 0):
        _settle(how, code, held, sessions, settings)
    duration_s = round(time.monotonic() - started, 1)
    log.info("job.left", attempt=held.attempt, how=how, returncode=code, duration_s=duration_s)


def _spawn(held: Claim) -> subprocess.Popen[bytes]:
    """Start the child. It ends by itself when this process dies: it holds the pipe's other end."""
    command = [sys.executable, "-m", "worker.child", str(held.job_id), str(held.attempt), held.kind]
    return subprocess.Popen(command, stdin=subprocess.PIPE)  # noqa: S603 (our own program)


def _watch(
    child: subprocess.Popen[bytes],
    held: Claim,
    sessions: sessionmaker[Session],
    settings: WorkerSettings,
    stop: threading.Event,
) -> How:
    """Keep the lease until the child ends or the job is no longer ours to do."""
    started = renewed = time.monotonic()
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(POLL_S)
            return "ended"
        now = time.monotonic()
        if now - renewed >= settings.heartbeat.total_seconds():
            try:
                with sessions.begin() as session:
                    protocol.renew(session, held, lease=settings.lease)
                renewed = now
            except LeaseLost:  # or the child has just stored the job's end, and is about to exit
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(GRACE_S)
                    return "ended"
                return "lost"
            except OperationalError:  # Postgres is away: the lease may outlast that
                log.warning("lease.not_renewed", attempt=held.attempt)
        if now - renewed >= settings.lease.total_seconds():
            return "lost"
        if now - started >= settings.job_time_limit.total_seconds():
            return "time_limit"
        if stop.is_set():
            return "stopped"


def _settle(
    how: How, code: int, held: Claim, sessions: sessionmaker[Session], settings: WorkerSettings
) -> None:
    """Store the outcome of a child that could not store its own."""
    try:
        with sessions.begin() as session:
            job = protocol.hold(session, held)
            if how == "time_limit":
                reason = f"The job ran longer than {settings.job_time_limit}, its time limit."
                protocol.fail(session, job, kind="time_limit", reason=reason)
            elif how == "stopped":
                protocol.release(session, job, why="the worker was stopped")
            else:
                why = f"its process ended with code {code}"
                if code == -signal.SIGKILL:
                    why += ", killed from outside, perhaps because memory ran out"
                protocol.lose(session, job, why=why, max_losses=settings.max_losses)
    except LeaseLost:
        log.warning("job.lost", attempt=held.attempt)
