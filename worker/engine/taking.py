"""Which job this worker does next, and how often it looks whether there is one."""

from datetime import timedelta

import structlog
from sqlalchemy.orm import Session, sessionmaker

from domain import urgency
from domain.settings import WorkerSettings
from worker.engine import supervisor
from worker.engine.supervisor import Orders


def do_most_urgent(
    sessions: sessionmaker[Session], settings: WorkerSettings, *, worker: str, orders: Orders
) -> bool:
    """Do the most urgent job of the kinds that this worker takes; whether there was one.

    One that another worker takes at the same moment is left to it, and the next one tried.

    Args:
        worker: the name to claim the job under.
    """
    with sessions.begin() as session:
        ready = urgency.ready(session, settings.job_kinds)
    for job_id in ready:
        with structlog.contextvars.bound_contextvars(job_id=str(job_id)):
            if supervisor.run(job_id, sessions, settings, worker=worker, orders=orders):
                return True
    return False


def looks_every(settings: WorkerSettings) -> timedelta:
    """How often a worker looks for jobs by itself.

    One that takes some kinds only looks as often as the clock rings: the doorbell for one of its
    jobs may have been heard by a worker that takes others.
    """
    if {*settings.job_kinds} >= urgency.EVERY_KIND:
        return settings.poll_interval
    return min(settings.poll_interval, settings.sweep_interval)
