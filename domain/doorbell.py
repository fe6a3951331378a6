"""The names of the worker's tasks, and how to ring for it.

A message only says "look": lost, repeated, late or reordered ones change nothing, because the
row in Postgres is the truth and the sweep rings again. Even the job that it names is not the one
that is done, where a more urgent one waits by then.
"""

import asyncio
from datetime import timedelta
from uuid import UUID

import structlog
from celery import Celery
from kombu.exceptions import OperationalError
from pydantic import SecretStr
from redis.exceptions import RedisError

from domain.broker_url import Broker

RUN = "worker.run"
SWEEP = "worker.sweep"
CLEAN = "worker.clean"
DELIVER = "worker.deliver"
KEEP_LOG = "worker.keep_log"

JOBS_QUEUE = "lethe.jobs"
SWEEPS_QUEUE = "lethe.sweeps"
DELIVERIES_QUEUE = "lethe.deliveries"

RING_EXPIRES = timedelta(minutes=1)
"""An older ring is dropped when it is heard; the sweep has made new ones by then."""

RINGS_APART = timedelta(milliseconds=100)
"""How long those who ask for a sweep meanwhile wait for each other."""

WHY_SHOWN = 200
"""Characters of what the broker says when it refuses."""

_ringing = asyncio.Lock()
_waiting: set[Celery] = set()

log = structlog.get_logger()


def queue(broker_url: SecretStr | str) -> Celery:
    """A Celery client that rings and expects no answer; a dead broker costs it seconds."""
    broker = Broker.of(broker_url)
    app = Celery("lethe", broker=broker.for_kombu, set_as_current=False)
    app.conf.update(
        broker_use_ssl=broker.tls,
        task_ignore_result=True,
        task_routes={
            RUN: {"queue": JOBS_QUEUE},
            SWEEP: {"queue": SWEEPS_QUEUE},
            CLEAN: {"queue": SWEEPS_QUEUE},
            KEEP_LOG: {"queue": SWEEPS_QUEUE},
            DELIVER: {"queue": DELIVERIES_QUEUE},
        },
        broker_connection_retry_on_startup=True,
        broker_transport_options={
            "socket_connect_timeout": 1,
            "socket_timeout": 5,
            # Not the twelve seconds that kombu tries for: the sweep rings again.
            "max_retries": 1,
            "interval_start": 0,
            "interval_step": 0.1,
        },
        task_publish_retry=False,
    )
    return app


def ring_sweep(app: Celery) -> None:
    """Ask for waiting requests to be planned now."""
    _ring(app, SWEEP)


async def ring_sweep_together(app: Celery) -> None:
    """`ring_sweep` for the API: who asks while a ring is under way shares the next one.

    One sweep plans all that is stored by then.
    """
    if app in _waiting:
        return
    if _ringing.locked():
        _waiting.add(app)
        await asyncio.sleep(RINGS_APART.total_seconds())
    async with _ringing:
        _waiting.discard(app)
        await asyncio.to_thread(ring_sweep, app)


def ring_job(app: Celery, job_id: UUID) -> None:
    """Ask a worker to look, as a job waits: it takes what is most urgent then."""
    _ring(app, RUN, str(job_id))


def ring_deliveries(app: Celery) -> None:
    """Ask for what waits for webhooks to be sent now."""
    _ring(app, DELIVER)


def silence(app: Celery) -> None:
    """Take back all rings for jobs that nobody has heard yet."""
    try:
        with app.connection_for_write() as connection:
            connection.default_channel.queue_purge(JOBS_QUEUE)
    except (OperationalError, RedisError, OSError) as error:
        log.warning("doorbell.not_silenced", why=str(error)[:WHY_SHOWN])


def _ring(app: Celery, task: str, *args: str) -> None:
    try:
        app.send_task(task, args=args, expires=RING_EXPIRES.total_seconds())
    except (OperationalError, RedisError, OSError) as error:
        log.warning("doorbell.lost", task=task, why=str(error)[:WHY_SHOWN])
