"""What a doorbell can ask for: take a job, look around for what waits, clear away what is over.

A worker also looks around by itself, slowly, so that a job is found when nobody can ring.
"""

import signal
import threading
from datetime import timedelta
from typing import Any
from uuid import UUID

import structlog
from celery.signals import worker_init, worker_shutting_down
from sqlalchemy.exc import DBAPIError

from service import doorbell
from worker import cleaning, planner, supervisor
from worker.app import NAME, app, sessions, settings
from worker.artifacts import Store
from worker.supervisor import Orders

log = structlog.get_logger()
orders = Orders()
hands = threading.Lock()
"""A worker does one job at a time, whether it heard of it or found it."""


@worker_shutting_down.connect
def stop_soon(**_: object) -> None:
    """The first SIGTERM or SIGINT: the job in hand may finish its cycle. From here on, SIGINT means
    at once; Celery's own answer to it would wait for the job."""
    orders.stop.set()
    signal.signal(signal.SIGINT, lambda *_: orders.stop_now.set())


@worker_init.connect
def look_around(sender: Any, **_: object) -> None:
    """Start looking into Postgres, in a worker that takes jobs."""
    if doorbell.JOBS_QUEUE in sender.app.amqp.queues.consume_from:
        threading.Thread(target=_look_every, args=[settings.poll_interval], name="look").start()


@app.task(name=doorbell.RUN)
def run(job_id: str) -> None:
    """Carry a job from `queued` to its end, in a process of its own.

    May be delivered twice or late: then there is nothing to take.
    """
    with hands:
        _do(UUID(job_id))
    if not orders.stop.is_set():
        doorbell.ring_sweep(app)


@app.task(name=doorbell.SWEEP)
def sweep() -> None:
    """Free what dead workers hold, turn waiting requests into jobs, ring for queued ones.

    Old rings are taken back first: so there is one for each queued job, however long they wait.
    """
    doorbell.silence(app)
    for job_id in planner.sweep(sessions, max_losses=settings.max_losses):
        doorbell.ring_job(app, job_id)


@app.task(name=doorbell.CLEAN)
def clean() -> None:
    """Delete what nobody needs any more: ended jobs' checkpoints, nameless files, old answers."""
    cleaning.clean(sessions, Store(settings.store), settings)


def look() -> None:
    """Sweep, and do the first job that waits, unless one is in hand."""
    if not hands.acquire(blocking=False):
        return
    try:
        for job_id in planner.sweep(sessions, max_losses=settings.max_losses)[:1]:
            _do(job_id)
    finally:
        hands.release()


def _do(job_id: UUID) -> None:
    if not orders.stop.is_set():
        with structlog.contextvars.bound_contextvars(job_id=str(job_id)):
            supervisor.run(job_id, sessions, settings, worker=NAME, orders=orders)


def _look_every(interval: timedelta) -> None:
    while not orders.stop.wait(interval.total_seconds()) and threading.main_thread().is_alive():
        try:
            look()
        except DBAPIError as error:
            log.warning("database.unavailable", kind=type(error.orig).__name__)
