"""Sends pending webhooks: claim in one transaction, send outside any, store in another.

Delivery is at least once: when a sender dies between sending and storing, another sends the message
again with the same `webhook-id`. The attempt number is the fencing token, as it is for jobs.
"""

import asyncio
import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

import structlog
from sqlalchemy import delete, exists, func, select, update
from sqlalchemy.orm import Session, sessionmaker
from standardwebhooks import Webhook

from domain import __version__, outbox
from domain.settings import WorkerSettings
from domain.states import DeliveryFailure, DeliveryStatus, WebhookStatus, delivery_sources
from domain.tables import WebhookDelivery, WebhookEndpoint
from worker.delivery import egress
from worker.delivery.egress import Line, NotSent

DELAYS = (
    timedelta(seconds=5),
    timedelta(minutes=5),
    timedelta(minutes=30),
    timedelta(hours=2),
    timedelta(hours=5),
    timedelta(hours=10),
    timedelta(hours=14),
    timedelta(hours=20),
    timedelta(hours=24),
)
"""The wait after each failed attempt; the tenth attempt is the last.

Source: the retry schedule recommended by the Standard Webhooks specification.
"""

JITTER = 0.2
"""A delay grows by up to this share, so that messages that failed together spread out."""

LEASE = timedelta(seconds=60)
"""A delivery whose sender has stored no outcome for this long is taken over by another. Longer than
one message may take, so only a dead sender loses its deliveries."""

AT_ONCE = 4
"""Messages in flight to one endpoint at a time."""

ROUND_S = 10
"""A call starts no more messages after this long."""

LOOK_S = 1
"""How often a running call looks for more endpoints with something due."""

SENDERS = 3
"""Concurrent calls in one process: fewer than its threads, so a sweep never waits for them."""

KEPT = timedelta(days=30)
"""How long a delivery is kept after it succeeded or was given up."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Message:
    """One attempt at a delivery, with everything it needs."""

    delivery_id: UUID
    endpoint_id: UUID
    attempt: int
    url: str
    body: str
    secrets: tuple[str, ...]
    """The secret before the last rotation is included while it is valid."""


@dataclass(frozen=True, slots=True)
class Sent:
    """The outcome of an attempt: a status, a failure, or both."""

    response_status: int | None
    failure: DeliveryFailure | None


def deliver(
    sessions: sessionmaker[Session],
    settings: WorkerSettings,
    *,
    stop: threading.Event | None = None,
) -> None:
    """Send what is due, and store the outcomes.

    Returns when nothing is due, at the latest after `ROUND_S` plus the time of one message. Safe to
    call at any moment, in any number of processes. A slow endpoint delays no other.

    Args:
        stop: set when this process should end soon; no more messages are started then.
    """
    until = time.monotonic() + ROUND_S

    def go_on() -> bool:
        return time.monotonic() < until and not (stop and stop.is_set())

    if due(sessions):  # avoids reading certificates every few seconds for nothing
        asyncio.run(_round(sessions, settings, go_on))


async def _round(
    sessions: sessionmaker[Session], settings: WorkerSettings, go_on: Callable[[], bool]
) -> None:
    """One lane for each endpoint that has something due, all at once."""
    lanes: dict[UUID, asyncio.Task[None]] = {}
    async with egress.line(development=settings.webhook_development) as line:
        try:
            while True:
                if go_on():
                    for endpoint_id in await asyncio.to_thread(due, sessions):
                        if endpoint_id not in lanes:
                            lane = _lane(endpoint_id, line, sessions, go_on)
                            lanes[endpoint_id] = asyncio.create_task(lane)
                if not lanes:
                    return
                done, _ = await asyncio.wait(
                    lanes.values(), timeout=LOOK_S, return_when=asyncio.FIRST_COMPLETED
                )
                lanes = {key: task for key, task in lanes.items() if task not in done}
                for task in done:
                    task.result()
        finally:  # e.g. no Postgres: what is in flight is sent again after its lease
            for task in lanes.values():
                task.cancel()
            await asyncio.gather(*lanes.values(), return_exceptions=True)


async def _lane(
    endpoint_id: UUID, line: Line, sessions: sessionmaker[Session], go_on: Callable[[], bool]
) -> None:
    """Send what is due at one endpoint, a few at a time, oldest first."""
    while go_on():
        messages = await asyncio.to_thread(claim, sessions, endpoint_id)
        if not messages:
            return
        await asyncio.gather(*(_send(message, line, sessions) for message in messages))


async def _send(message: Message, line: Line, sessions: sessionmaker[Session]) -> None:
    sent = await attempt(message, line)
    await asyncio.to_thread(store, sessions, message, sent)


def due(sessions: sessionmaker[Session]) -> Sequence[UUID]:
    """The enabled endpoints with something due now."""
    waits = exists().where(
        WebhookDelivery.endpoint_id == WebhookEndpoint.id,
        WebhookDelivery.status == DeliveryStatus.WAITING,
        WebhookDelivery.next_attempt_at <= func.now(),
    )
    with sessions.begin() as session:
        return session.scalars(
            select(WebhookEndpoint.id).where(WebhookEndpoint.status == WebhookStatus.ENABLED, waits)
        ).all()


def claim(sessions: sessionmaker[Session], endpoint_id: UUID) -> list[Message]:
    """Claim the next deliveries to an endpoint; no other sender takes them before their lease
    ends."""
    with sessions.begin() as session:
        endpoint = session.scalars(
            select(WebhookEndpoint).filter_by(id=endpoint_id, status=WebhookStatus.ENABLED)
        ).one_or_none()
        if endpoint is None:
            return []
        oldest = (
            select(WebhookDelivery.id)
            .where(
                WebhookDelivery.endpoint_id == endpoint_id,
                WebhookDelivery.status == DeliveryStatus.WAITING,
                WebhookDelivery.next_attempt_at <= func.now(),
            )
            .order_by(WebhookDelivery.next_attempt_at, WebhookDelivery.id)
            .limit(AT_ONCE)
            .with_for_update(skip_locked=True)
            .cte("oldest")
        )
        taken = session.execute(
            update(WebhookDelivery)
            .where(WebhookDelivery.id == oldest.c.id)
            .values(attempt=WebhookDelivery.attempt + 1, next_attempt_at=func.now() + LEASE)
            .returning(WebhookDelivery.id, WebhookDelivery.attempt, WebhookDelivery.body)
            .execution_options(synchronize_session=False)
        ).all()
        signing = _secrets(endpoint, session.scalars(select(func.now())).one())
        return [
            Message(row.id, endpoint_id, row.attempt, endpoint.url, row.body, signing)
            for row in taken
        ]


def _secrets(endpoint: WebhookEndpoint, now: datetime) -> tuple[str, ...]:
    until = endpoint.previous_secret_until
    if endpoint.previous_secret is None or until is None or until <= now:
        return (endpoint.secret,)
    return endpoint.secret, endpoint.previous_secret


async def attempt(message: Message, line: Line) -> Sent:
    """Send a message once. Every reaction of the receiver is an outcome."""
    headers = signed(message, datetime.now(UTC))
    try:
        status = await line.post(message.url, message.body.encode(), headers)
    except NotSent as error:
        return Sent(None, error.failure)
    return Sent(status, _judge(status))


def signed(message: Message, at: datetime) -> dict[str, str]:
    """The headers that Standard Webhooks prescribes: one signature for each secret."""
    name = str(message.delivery_id)
    signatures = [Webhook(secret).sign(name, at, message.body) for secret in message.secrets]
    return {
        "Content-Type": "application/cloudevents+json; charset=utf-8",
        "User-Agent": f"Lethe/{__version__}",
        "webhook-id": name,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": " ".join(signatures),
    }


def _judge(status: int) -> DeliveryFailure | None:
    if 200 <= status < 300:
        return None
    if 300 <= status < 400:
        return DeliveryFailure.REDIRECT
    return DeliveryFailure.GONE if status == 410 else DeliveryFailure.STATUS


def store(sessions: sessionmaker[Session], message: Message, sent: Sent) -> None:
    """Store the outcome of an attempt, unless the delivery was taken over or ended meanwhile."""
    with sessions.begin() as session:
        if sent.failure is DeliveryFailure.GONE:  # the endpoint is locked before its deliveries
            session.get(WebhookEndpoint, message.endpoint_id, with_for_update=True)
        becomes = _next(message.attempt, sent)
        stored = session.scalar(
            update(WebhookDelivery)
            .where(
                WebhookDelivery.id == message.delivery_id,
                WebhookDelivery.attempt == message.attempt,
                WebhookDelivery.status.in_(delivery_sources(DeliveryStatus.DELIVERED)),
            )
            .values(response_status=sent.response_status, failure=sent.failure, **becomes)
            .returning(WebhookDelivery.status)
            .execution_options(synchronize_session=False)
        )
        if stored is not None and sent.failure is DeliveryFailure.GONE:
            outbox.disable(
                session,
                message.endpoint_id,
                actor="worker",
                reason="It answered 410 Gone.",
                failure=DeliveryFailure.GONE,
            )
    log.info(
        "webhook.sent",
        webhook_id=str(message.endpoint_id),
        delivery_id=str(message.delivery_id),
        attempt=message.attempt,
        response_status=sent.response_status,
        failure=sent.failure,
        status=stored,
    )


def _next(attempt: int, sent: Sent) -> dict[str, object]:
    """The state of a delivery after this attempt."""
    if sent.failure is None:
        return {"status": DeliveryStatus.DELIVERED, "finished_at": func.now()}
    if sent.failure is DeliveryFailure.GONE or attempt > len(DELAYS):
        return {"status": DeliveryStatus.DEAD, "finished_at": func.now()}
    delay = DELAYS[attempt - 1] * random.uniform(1, 1 + JITTER)  # noqa: S311 (no secret)
    return {"next_attempt_at": func.now() + delay}


def forget_old(session: Session) -> None:
    """Delete deliveries that ended long ago, and secrets that no longer sign."""
    ended = (DeliveryStatus.DELIVERED, DeliveryStatus.DEAD)
    session.execute(
        delete(WebhookDelivery).where(
            WebhookDelivery.status.in_(ended), WebhookDelivery.finished_at < func.now() - KEPT
        )
    )
    session.execute(
        update(WebhookEndpoint)
        .where(WebhookEndpoint.previous_secret_until < func.now())
        .values(previous_secret=None, previous_secret_until=None)
    )
