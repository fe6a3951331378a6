"""One job in a process of its own: a fork of one that has imported this module.

It stores its own outcome and exits 0; any other exit code tells the parent that it could not.
"""

import gc
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import NoReturn
from uuid import UUID

import structlog
from psycopg.errors import QueryCanceled
from sqlalchemy import func, select
from sqlalchemy.exc import OperationalError

from domain import database_errors, environment, jobs
from domain import log as logs
from domain.database import JOB, sync_engine, sync_sessions
from domain.errors import JobError, LeaseLost, Stopped, StoreUnwritable
from domain.settings import WorkerSettings
from domain.states import JobKind
from worker import budgets
from worker.engine import first_use, lease
from worker.engine.confinement import confine
from worker.engine.exits import DATABASE_AWAY, DATABASE_FAILED, LEASE_LOST, STOPPED
from worker.engine.lease import Claim
from worker.engine.retrying import is_transient
from worker.engine.workbench import Workbench
from worker.jobs.check_dataset import check_dataset
from worker.jobs.erase_rows import erase_rows
from worker.jobs.estimate import estimate
from worker.jobs.index_dataset import index_dataset
from worker.jobs.index_state import index_state
from worker.jobs.purge import purge
from worker.jobs.register_model import register_model
from worker.jobs.register_version import register_version
from worker.jobs.train_references import train_references
from worker.jobs.unlearn.job import unlearn_model
from worker.store.artifacts import Store
from worker.unlearning.errors import UnlearningError

WORK: Mapping[JobKind, Callable[[Workbench], None]] = {
    JobKind.INDEX_DATASET: index_dataset,
    JobKind.INDEX_STATE: index_state,
    JobKind.REGISTER_MODEL: register_model,
    JobKind.REGISTER_VERSION: register_version,
    JobKind.TRAIN_REFERENCES: train_references,
    JobKind.UNLEARN: unlearn_model,
    JobKind.ESTIMATE: estimate,
    JobKind.ERASE_ROWS: erase_rows,
    JobKind.CHECK_DATASET: check_dataset,
    JobKind.PURGE: purge,
}

TOO_SLOW = (
    f"A statement took the database longer than {JOB.statement} seconds. Reduce the load on it, or "
    "the size of the dataset, then retry the job."
)

TOO_LITTLE_MEMORY = (
    "There is too little memory for this model and this many samples. Send fewer at once, or have "
    "the operator give the worker more: its machine, its container or LETHE_JOB_MEMORY_BYTES."
)

log = structlog.get_logger()

first_use.anticipate()


def main(job_id: str, attempt: int, kind: str) -> NoReturn:
    """Do the job, store how it ended, and exit."""
    gc.freeze()  # what was imported is never garbage: to look through it takes a third of a second
    _end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent to answer
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    status = _do(Claim(UUID(job_id), attempt, JobKind(kind)), stop)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # unloading torch would hold up the parent and the GPU for seconds


def _do(claim: Claim, stop: threading.Event) -> int:
    """The exit status of the job's process."""
    settings = environment.read(WorkerSettings)
    logs.configure(
        settings.log_format, process="job", job_id=str(claim.job_id), attempt=claim.attempt
    )
    confine(settings, claim.kind)
    engine = sync_engine(settings.database_url, JOB)
    bench = Workbench(
        claim,
        sync_sessions(engine),
        Store(settings.store, claim.signature),
        settings,
        stop,
    )
    try:
        return _carry_out(bench)
    except LeaseLost:
        log.warning("job.lost")
        return LEASE_LOST
    except Stopped:
        return STOPPED
    except OperationalError as error:
        log.warning("database.unavailable", **database_errors.told(error))
        return DATABASE_AWAY if is_transient(error) else DATABASE_FAILED
    finally:
        engine.dispose()


def _carry_out(bench: Workbench) -> int:
    started = _now(bench)
    try:
        WORK[bench.claim.kind](bench)
    except JobError as error:
        if not _give_back_if_rewritten(bench, started):
            _fail(bench, kind="input", reason=str(error))
    except UnlearningError as error:
        _fail(bench, kind="method", reason=f"The method failed: {error}")
    except OperationalError as error:
        if not isinstance(error.orig, QueryCanceled):
            raise  # not the job's fault: another worker will take it
        _fail(bench, kind="time_limit", reason=TOO_SLOW)
    except (LeaseLost, Stopped):
        raise  # another worker has it, or will take it
    except StoreUnwritable as error:
        _lose(bench, kind="storage", why=str(error))
    except Exception as bug:  # the outermost handler: a person must learn why the job ended
        if budgets.is_out_of_memory(bug):
            _fail(bench, kind="memory", reason=TOO_LITTLE_MEMORY)
            return 0
        if _give_back_if_rewritten(bench, started):
            return 0
        log.exception("job.crashed")
        reason = (
            f"The job stopped on an unexpected {type(bug).__name__}. Look for job "
            f"{bench.claim.job_id} in the worker's log for the details."
        )
        _fail(bench, kind="bug", reason=reason)
    return 0


def _fail(bench: Workbench, *, kind: str, reason: str) -> None:
    for attempt in bench.transaction():
        with attempt as session:
            jobs.fail(
                session, lease.hold(session, bench.claim), actor="worker", kind=kind, reason=reason
            )
    log.warning("job.failed", kind=kind, reason=jobs.storable(reason))


def _now(bench: Workbench) -> datetime:
    for attempt in bench.transaction():
        with attempt as session:
            now: datetime = session.scalars(select(func.now())).one()
    return now


def _give_back_if_rewritten(bench: Workbench, started: datetime) -> bool:
    """Whether the job's dataset lost rows while it was read. If so, the job goes back to the queue,
    and the attempt does not count against it."""
    for attempt in bench.transaction():
        with attempt as session:
            job = lease.hold(session, bench.claim)
            rewritten = jobs.is_rewritten(session, job, since=started)
            if rewritten:
                jobs.release(
                    session,
                    job,
                    actor="worker",
                    why="its dataset was rewritten while the job ran",
                    wait=jobs.FIRST_WAIT,
                )
    return rewritten


def _lose(bench: Workbench, *, kind: str, why: str) -> None:
    limit = bench.settings.max_losses
    for attempt in bench.transaction():
        with attempt as session:
            job = lease.hold(session, bench.claim)
            jobs.lose(session, job, actor="worker", why=why, max_losses=limit, kind=kind)
    log.warning("job.attempt_lost", kind=kind, why=jobs.storable(why))


def _end_with_parent() -> None:
    """Exit as soon as the worker is gone, however it went."""
    worker = multiprocessing.parent_process()
    assert worker is not None  # noqa: S101 (nobody else starts a job)

    def wait() -> None:
        worker.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
