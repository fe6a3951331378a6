"""What can be done with webhooks. One function, one transaction."""

import secrets
from base64 import b64encode
from datetime import timedelta
from uuid import UUID

from sqlalchemy import delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from domain import destinations, outbox, trail
from domain.errors import (
    DeliveryNotDead,
    NotFound,
    TooManyWebhooks,
    WebhookDisabled,
    WebhookExists,
    no_such,
)
from domain.states import DeliveryFailure, DeliveryStatus, WebhookStatus, delivery_sources
from domain.tables import WebhookDelivery, WebhookEndpoint
from domain.webhook_events import (
    WebhookDeleted,
    WebhookEnabled,
    WebhookRegistered,
    WebhookSecretRotated,
)
from service.dependencies import Sessions, Settings
from service.paging import Page, Window
from service.webhooks.schemas import (
    DeliveryRead,
    SecretRotated,
    WebhookChange,
    WebhookCreate,
    WebhookCreated,
    WebhookRead,
)

MOST = 20
"""Every state change is written once for each endpoint."""

OVERLAP = timedelta(hours=24)
"""How long a secret signs on after its rotation."""

REGISTER_LOCK = 0x1E7E_40C5
"""The advisory lock of registrations: only so is their number what was counted."""


async def register(
    sessions: Sessions, wanted: WebhookCreate, *, settings: Settings
) -> WebhookCreated:
    """Store an endpoint, enabled, with a secret of its own.

    Raises:
        DestinationRefused: nothing may be sent to this URL.
        WebhookExists: it is registered already.
        TooManyWebhooks: no more are allowed.
    """
    destinations.parse(wanted.url, development=settings.webhook_development)
    async with sessions.begin() as session:
        await session.execute(select(func.pg_advisory_xact_lock(REGISTER_LOCK)))
        known = await session.scalar(select(WebhookEndpoint.id).filter_by(url=wanted.url))
        if known is not None:
            raise WebhookExists(
                f"The URL is already registered as webhook {known}; change or delete that one.",
                webhook_id=str(known),
            )
        if await session.scalar(select(func.count()).select_from(WebhookEndpoint)) == MOST:
            raise TooManyWebhooks(
                f"At most {MOST} webhooks are allowed; delete one that you do not need."
            )
        endpoint = WebhookEndpoint(**wanted.model_dump(), secret=_new_secret())
        session.add(endpoint)
        await session.flush()
        trail.record(session, "api", endpoint.id, WebhookRegistered())
        await session.refresh(endpoint)
    return WebhookCreated.model_validate(endpoint)


async def get(sessions: Sessions, webhook_id: UUID) -> WebhookRead:
    """One endpoint. Raises NotFound when there is none with this id."""
    async with sessions.begin() as session:
        return WebhookRead.model_validate(await _one(session, webhook_id))


async def find(sessions: Sessions, window: Window) -> Page[WebhookRead]:
    """Endpoints, newest first."""
    after = window.after(UUID)
    chosen = select(WebhookEndpoint).order_by(WebhookEndpoint.id.desc()).limit(window.limit + 1)
    if after is not None:
        chosen = chosen.where(WebhookEndpoint.id < after)
    async with sessions.begin() as session:
        rows = (await session.scalars(chosen)).all()
    rows, next_cursor = window.cut(rows, lambda row: row.id)
    return Page(items=[WebhookRead.model_validate(row) for row in rows], next_cursor=next_cursor)


async def change(sessions: Sessions, webhook_id: UUID, wanted: WebhookChange) -> WebhookRead:
    """Change what is given. Raises NotFound when there is no such endpoint."""
    async with sessions.begin() as session:
        endpoint = await _one(session, webhook_id, lock=True)
        for name in wanted.model_fields_set & {"description", "events"}:
            setattr(endpoint, name, getattr(wanted, name))
        await session.flush()
        if wanted.status is WebhookStatus.DISABLED:
            await session.run_sync(
                outbox.disable,
                webhook_id,
                actor="api",
                reason="It was disabled through the API.",
                failure=DeliveryFailure.DISABLED,
            )
        elif wanted.status is not None and endpoint.status is not wanted.status:
            endpoint.status, endpoint.disabled_reason = wanted.status, None
            trail.record(session, "api", webhook_id, WebhookEnabled())
        await session.flush()
        await session.refresh(endpoint)
        return WebhookRead.model_validate(endpoint)


async def remove(sessions: Sessions, webhook_id: UUID) -> None:
    """Delete an endpoint and its deliveries. Raises NotFound when there is none."""
    async with sessions.begin() as session:
        await _one(session, webhook_id, lock=True)
        await session.execute(delete(WebhookEndpoint).filter_by(id=webhook_id))
        trail.record(session, "api", webhook_id, WebhookDeleted())


async def rotate_secret(sessions: Sessions, webhook_id: UUID) -> SecretRotated:
    """Give an endpoint a new secret; the one before signs on for a day, those older do not.

    Raises NotFound when there is no such endpoint.
    """
    async with sessions.begin() as session:
        endpoint = await _one(session, webhook_id, lock=True)
        endpoint.previous_secret, endpoint.secret = endpoint.secret, _new_secret()
        endpoint.previous_secret_until = func.now() + OVERLAP
        trail.record(session, "api", webhook_id, WebhookSecretRotated())
        await session.flush()
        await session.refresh(endpoint)
        return SecretRotated.model_validate(endpoint)


async def find_deliveries(
    sessions: Sessions, webhook_id: UUID, window: Window, *, status: DeliveryStatus | None
) -> Page[DeliveryRead]:
    """Deliveries to an endpoint, newest first: all, or those of one status.

    Raises NotFound when there is no such endpoint.
    """
    after = window.after(UUID)
    chosen = (
        select(WebhookDelivery)
        .filter_by(endpoint_id=webhook_id)
        .order_by(WebhookDelivery.id.desc())
        .limit(window.limit + 1)
    )
    if after is not None:
        chosen = chosen.where(WebhookDelivery.id < after)
    if status is not None:
        chosen = chosen.where(WebhookDelivery.status == status)
    async with sessions.begin() as session:
        await _one(session, webhook_id)
        rows = (await session.scalars(chosen)).all()
    rows, next_cursor = window.cut(rows, lambda row: row.id)
    return Page(items=[_delivery(row) for row in rows], next_cursor=next_cursor)


async def retry(sessions: Sessions, webhook_id: UUID, delivery_id: UUID) -> DeliveryRead:
    """Have a delivery that was given up sent once more, at once.

    Raises:
        NotFound: there is no such endpoint, or no such delivery to it.
        WebhookDisabled: nothing is sent to it.
        DeliveryNotDead: the delivery waits, or has arrived.
    """
    async with sessions.begin() as session:
        await _enabled(session, webhook_id)
        delivery = await session.scalar(
            select(WebhookDelivery)
            .filter_by(id=delivery_id, endpoint_id=webhook_id)
            .with_for_update()
        )
        if delivery is None:
            raise NotFound(
                f"This webhook has no delivery {delivery_id}. "
                f"`GET /v1/webhooks/{webhook_id}/deliveries` lists those that exist."
            )
        if delivery.status not in delivery_sources(DeliveryStatus.WAITING):
            raise DeliveryNotDead(
                f"This delivery is {delivery.status}; only one that was given up can be retried."
            )
        await session.execute(
            update(WebhookDelivery)
            .filter_by(id=delivery_id)
            .values(status=DeliveryStatus.WAITING, next_attempt_at=func.now(), finished_at=None)
        )
        await session.refresh(delivery)
        return _delivery(delivery)


async def test(sessions: Sessions, webhook_id: UUID) -> DeliveryRead:
    """Queue an event that says it is a test.

    Raises:
        NotFound: there is no such endpoint.
        WebhookDisabled: nothing is sent to it.
    """
    async with sessions.begin() as session:
        await _enabled(session, webhook_id)
        delivery = await session.run_sync(outbox.announce_test, webhook_id)
        await session.refresh(delivery)
        return _delivery(delivery)


async def _one(session: AsyncSession, webhook_id: UUID, *, lock: bool = False) -> WebhookEndpoint:
    query = select(WebhookEndpoint).filter_by(id=webhook_id)
    endpoint = await session.scalar(query.with_for_update() if lock else query)
    if endpoint is None:
        raise no_such(f"webhook {webhook_id}", listed_at="/v1/webhooks")
    return endpoint


async def _enabled(session: AsyncSession, webhook_id: UUID) -> None:
    """Locks the endpoint, so that it stays enabled."""
    endpoint = await _one(session, webhook_id, lock=True)
    if endpoint.status is WebhookStatus.DISABLED:
        raise WebhookDisabled(
            f"Enable the webhook first: send `PATCH /v1/webhooks/{webhook_id}` with the body "
            '`{"status": "enabled"}`.'
        )


def _delivery(row: WebhookDelivery) -> DeliveryRead:
    read = DeliveryRead.model_validate(row)
    return read if row.finished_at is None else read.model_copy(update={"next_attempt_at": None})


def _new_secret() -> str:
    """As Standard Webhooks has it: 32 random bytes."""
    return f"whsec_{b64encode(secrets.token_bytes(32)).decode()}"
