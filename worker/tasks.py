"""What a doorbell can ask for: take a job, look around, send to webhooks, keep the audit trail,
clear away what is over.

Each process also looks by itself, slowly: what waits is found when nobody can ring.
"""

import signal
import threading
from collections.abc import Callable
from typing import Any
from uuid import UUID

import structlog
from celery.signals import worker_init, worker_shutting_down
from securesystemslib.signer import Signer
from sqlalchemy.exc import DBAPIError

from domain import doorbell
from worker.app import NAME, app, sessions, settings
from worker.delivery import webhooks
from worker.engine import supervisor
from worker.engine.supervisor import Orders
from worker.evidence import anchors, keeper, signing
from worker.housekeeping import cleaning, planner
from worker.restore import ledger
from worker.store.artifacts import Store

log = structlog.get_logger()
orders = Orders()
hands = threading.Lock()
"""A worker does one job at a time, whether it heard of it or found it."""
signers: list[Signer] = []
"""Of the audit trail; only where this process sweeps."""
sending = threading.BoundedSemaphore(webhooks.SENDERS)


@worker_shutting_down.connect
def stop_soon(**_: object) -> None:
    """The first SIGTERM or SIGINT: the job in hand may finish its cycle. From here on, SIGINT means
    at once; Celery's own answer to it would wait for the job."""
    orders.stop.set()
    signal.signal(signal.SIGINT, lambda *_: orders.stop_now.set())


@worker_init.connect
def look_around(sender: Any, **_: object) -> None:
    """Start looking into Postgres, for what this process is there for."""
    takes_jobs = doorbell.JOBS_QUEUE in sender.app.amqp.queues.consume_from
    if not takes_jobs:
        signers.extend(signing.load(settings.signing_keys))
        if not signers:
            log.warning("log.unsigned", setting="LETHE_SIGNING_KEYS")
    threading.Thread(target=_look_every, args=[look_for_jobs if takes_jobs else look]).start()


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
    doorbell.ring_deliveries(app)


@app.task(name=doorbell.DELIVER)
def deliver() -> None:
    """Send what waits for webhooks, if not enough are at it already."""
    if sending.acquire(blocking=False):
        try:
            webhooks.deliver(sessions, settings, stop=orders.stop)
        finally:
            sending.release()


@app.task(name=doorbell.CLEAN)
def clean() -> None:
    """Delete what nobody needs any more: ended jobs' checkpoints, nameless files, old answers."""
    cleaning.clean(sessions, Store(settings.store), settings)


@app.task(name=doorbell.KEEP_LOG)
def keep_log() -> None:
    """Keep what was forgotten outside the database; sign a checkpoint of the audit trail if one is
    due, and anchor it."""
    ledger.keep(sessions, settings.suppression_directory)  # before a certificate says so
    keeper.keep(sessions, signers, settings)
    anchors.anchor_newest(sessions, anchors.configured(settings))


def look_for_jobs() -> None:
    """Sweep, and do the first job that waits, unless one is in hand."""
    if not hands.acquire(blocking=False):
        return
    try:
        for job_id in planner.sweep(sessions, max_losses=settings.max_losses)[:1]:
            _do(job_id)
    finally:
        hands.release()


def look() -> None:
    """Sweep, send what waits for webhooks, and keep the audit trail."""
    planner.sweep(sessions, max_losses=settings.max_losses)
    deliver()
    keep_log()


def _do(job_id: UUID) -> None:
    if not orders.stop.is_set():
        with structlog.contextvars.bound_contextvars(job_id=str(job_id)):
            supervisor.run(job_id, sessions, settings, worker=NAME, orders=orders)


def _look_every(work: Callable[[], None]) -> None:
    interval = settings.poll_interval.total_seconds()
    while not orders.stop.wait(interval) and threading.main_thread().is_alive():
        try:
            work()
        except DBAPIError as error:
            log.warning("database.unavailable", kind=type(error.orig).__name__)
