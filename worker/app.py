"""The Celery process: its settings, its database and its schedule. It never imports torch."""

import os
import socket
from datetime import timedelta
from typing import Any

from celery import Celery
from celery.signals import setup_logging

from domain import doorbell, environment, log
from domain.database import sync_engine, sync_sessions
from domain.settings import WorkerSettings

settings = environment.read(WorkerSettings)
engine = sync_engine(settings.database_url)
sessions = sync_sessions(engine)

NAME = f"{socket.gethostname()}:{os.getpid()}"
"""The name this worker claims jobs under."""


@setup_logging.connect
def configure_log(**_: object) -> None:
    """Log in our format rather than Celery's."""
    log.configure(settings.log_format, process="worker")


def _every(interval: timedelta, task: str) -> dict[str, Any]:
    seconds = interval.total_seconds()
    return {"task": task, "schedule": seconds, "options": {"expires": seconds}}


def create() -> Celery:
    """Celery as we use it: doorbells in, no result backend, sweep and webhooks on a schedule."""
    app = doorbell.queue(settings.broker_url)
    app.conf.update(
        worker_prefetch_multiplier=1,
        worker_enable_remote_control=True,
        broker_connection_retry=True,
        broker_connection_max_retries=None,
        beat_scheduler="celery.beat:Scheduler",  # keeps no file: a missed sweep is only late
        beat_schedule={
            "sweep": _every(settings.sweep_interval, doorbell.SWEEP),
            "clean": _every(settings.orphan_age / 12, doorbell.CLEAN),
            "deliver": _every(settings.sweep_interval, doorbell.DELIVER),
            "keep_log": _every(settings.sweep_interval, doorbell.KEEP_LOG),
        },
    )
    return app


app = create()
