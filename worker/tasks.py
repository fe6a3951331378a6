"""What a doorbell can ask for: take a job, look around for what waits, send to webhooks."""

import threading
from uuid import UUID

import structlog
from celery.signals import worker_shutting_down

from service import doorbell
from worker import planner, supervisor, webhooks
from worker.app import NAME, app, sessions, settings

log = structlog.get_logger()
shutting_down = threading.Event()
sending = threading.BoundedSemaphore(webhooks.SENDERS)


@worker_shutting_down.connect
def stop_soon(**_: object) -> None:
    shutting_down.set()


@app.task(name=doorbell.RUN)
def run(job_id: str) -> None:
    """Carry a job from `queued` to its end, in a process of its own.

    May be delivered twice or late: then there is nothing to take.
    """
    with structlog.contextvars.bound_contextvars(job_id=job_id):
        supervisor.run(UUID(job_id), sessions, settings, worker=NAME, stop=shutting_down)
    if not shutting_down.is_set():
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
            webhooks.deliver(sessions, settings, stop=shutting_down)
        finally:
            sending.release()
