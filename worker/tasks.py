"""The tasks a doorbell can trigger: take a job, sweep, send to webhooks, keep the audit trail,
clean up.

Each process also polls, slowly, so pending work is found even when no doorbell arrives.
"""

import signal
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import structlog
from celery.signals import worker_init, worker_shutting_down
from securesystemslib.signer import Signer
from sqlalchemy.exc import DBAPIError

from domain import database_errors, doorbell
from worker.app import NAME, app, sessions, settings
from worker.delivery import webhooks
from worker.engine import taking
from worker.engine.supervisor import Orders
from worker.evidence import anchors, keeper, signing
from worker.housekeeping import cleaning, planner
from worker.restore import ledger
from worker.store.artifacts import Store

log = structlog.get_logger()
orders = Orders()
hands = threading.Lock()
"""A worker does one job at a time, whether a doorbell or polling brought it."""
signers: list[Signer] = []
"""The signers of the audit trail; only in the process that sweeps."""
sending = threading.BoundedSemaphore(webhooks.SENDERS)
clock_works = threading.Event()
"""Set by what the broker's clock asks for; while that comes, there is nothing to look for."""


@worker_shutting_down.connect
def stop_soon(**_: object) -> None:
    """On the first SIGTERM or SIGINT, the current job may finish its cycle. After that, SIGINT
    stops at once; Celery's own handler would wait for the job."""
    orders.stop.set()
    signal.signal(signal.SIGINT, lambda *_: orders.stop_now.set())


@worker_init.connect
def look_around(sender: Any, **_: object) -> None:
    """Start polling Postgres for this process's kind of work."""
    takes_jobs = doorbell.JOBS_QUEUE in sender.app.amqp.queues.consume_from
    if not takes_jobs:
        try:
            signers.extend(signing.load(settings.signing_keys))
        except signing.KeyUnusable as error:  # as an Exception, Celery would log it and go on
            raise SystemExit(str(error)) from None
        if not signers:
            log.warning("log.unsigned", setting="LETHE_SIGNING_KEYS")
        how: tuple[Callable[[], None], timedelta] = look, settings.poll_interval
    else:
        how = look_for_jobs, taking.looks_every(settings)
    threading.Thread(target=_look_every, args=how).start()


@app.task(name=doorbell.RUN)
def run(_: str) -> None:
    """Run a job from `queued` to its end, in a process of its own: the one that is most urgent by
    now, for the doorbell may have been rung long ago, for one that has ended, or for one of a kind
    that this worker does not take.
    """
    with hands:
        worked = _do_next()
    if worked and not orders.stop.is_set():
        doorbell.ring_sweep(app)


@app.task(name=doorbell.SWEEP)
def sweep() -> None:
    """Free jobs of dead workers, turn waiting requests into jobs, ring for queued jobs.

    Old rings are withdrawn first, so each queued job has one, however long it waits.
    """
    doorbell.silence(app)
    for job_id in planner.sweep(sessions, max_losses=settings.max_losses):
        doorbell.ring_job(app, job_id)
    doorbell.ring_deliveries(app)


@app.task(name=doorbell.DELIVER)
def deliver() -> None:
    """Send pending webhooks, unless enough senders are running."""
    if sending.acquire(blocking=False):
        try:
            webhooks.deliver(sessions, settings, stop=orders.stop)
        finally:
            sending.release()


@app.task(name=doorbell.CLEAN)
def clean() -> None:
    """Delete what is no longer needed: checkpoints of ended jobs, unnamed files, old answers."""
    cleaning.clean(sessions, Store(settings.store), settings)


@app.task(name=doorbell.KEEP_LOG)
def keep_log() -> None:
    """Update the suppression ledger; sign a checkpoint of the audit trail if one is due, and anchor
    it."""
    ledger.keep(sessions, settings.suppression_directory)  # before a certificate claims it
    keeper.keep(sessions, signers, settings)
    anchors.anchor_newest(sessions, anchors.configured(settings))
    clock_works.set()


def look_for_jobs() -> None:
    """Sweep, and do the most urgent job, unless one is running."""
    if not hands.acquire(blocking=False):
        return
    try:
        planner.sweep(sessions, max_losses=settings.max_losses)
        _do_next()
    finally:
        hands.release()


def look() -> None:
    """Sweep, send pending webhooks, and keep the audit trail, unless the clock had it done."""
    if clock_works.is_set():
        clock_works.clear()
        return
    planner.sweep(sessions, max_losses=settings.max_losses)
    deliver()
    keep_log()
    clock_works.clear()


def _do_next() -> bool:
    return taking.do_most_urgent(sessions, settings, worker=NAME, orders=orders)


def _look_every(work: Callable[[], None], interval: timedelta) -> None:
    while not orders.stop.wait(interval.total_seconds()) and threading.main_thread().is_alive():
        try:
            work()
        except DBAPIError as error:
            log.warning("database.unavailable", **database_errors.told(error))
