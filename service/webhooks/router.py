"""The routes of webhooks. HTTP only."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, BackgroundTasks, Query, Response

from domain import doorbell
from domain.errors import (
    DeliveryNotDead,
    DestinationRefused,
    InvalidCursor,
    NotFound,
    TooManyWebhooks,
    WebhookDisabled,
    WebhookExists,
)
from domain.states import DeliveryStatus
from service.dependencies import Queue, Sessions, Settings
from service.paging import Page, Paging
from service.problems import documented
from service.webhooks import operations
from service.webhooks.schemas import (
    DeliveryRead,
    SecretRotated,
    WebhookChange,
    WebhookCreate,
    WebhookCreated,
    WebhookRead,
)

router = APIRouter(prefix="/webhooks", tags=["webhooks"])

OnlyStatus = Annotated[DeliveryStatus | None, Query(alias="status")]


@router.post(
    "",
    status_code=201,
    responses=documented(DestinationRefused, WebhookExists, TooManyWebhooks),
)
async def register_webhook(
    body: WebhookCreate, sessions: Sessions, settings: Settings, response: Response
) -> WebhookCreated:
    """Have what becomes of deletion requests POSTed to a URL. Keep the secret: it is shown once.

    Bodies are CloudEvents, signed as Standard Webhooks has it. They say which request, its status,
    its dates and its models; no sample id, no subject reference and no reason.
    """
    webhook = await operations.register(sessions, body, settings=settings)
    response.headers["Location"] = f"/v1/webhooks/{webhook.id}"
    response.headers["Cache-Control"] = "no-store"
    return webhook


@router.get("", responses=documented(InvalidCursor))
async def list_webhooks(sessions: Sessions, window: Paging) -> Page[WebhookRead]:
    """Webhooks, newest first."""
    return await operations.find(sessions, window)


@router.get("/{webhook_id}", responses=documented(NotFound))
async def read_webhook(webhook_id: UUID, sessions: Sessions) -> WebhookRead:
    """One webhook: what it is told, whether it is enabled, and if not, why."""
    return await operations.get(sessions, webhook_id)


@router.patch("/{webhook_id}", responses=documented(NotFound))
async def change_webhook(webhook_id: UUID, body: WebhookChange, sessions: Sessions) -> WebhookRead:
    """Enable or disable a webhook, or change what it is told. What is left out stays."""
    return await operations.change(sessions, webhook_id, body)


@router.delete("/{webhook_id}", status_code=204, responses=documented(NotFound))
async def delete_webhook(webhook_id: UUID, sessions: Sessions) -> None:
    """Delete a webhook, with its deliveries and its secrets."""
    await operations.remove(sessions, webhook_id)


@router.post("/{webhook_id}/rotate-secret", responses=documented(NotFound))
async def rotate_webhook_secret(
    webhook_id: UUID, sessions: Sessions, response: Response
) -> SecretRotated:
    """Make a new secret. For 24 hours everything is signed with both, so that nothing is missed
    while the receiver changes over."""
    response.headers["Cache-Control"] = "no-store"
    return await operations.rotate_secret(sessions, webhook_id)


@router.get("/{webhook_id}/deliveries", responses=documented(NotFound, InvalidCursor))
async def list_webhook_deliveries(
    webhook_id: UUID, sessions: Sessions, window: Paging, only_status: OnlyStatus = None
) -> Page[DeliveryRead]:
    """What was sent or is to be sent, newest first: all, or those of one status. The `dead` were
    given up, and say why; after 30 days they are deleted, as the `delivered` are."""
    return await operations.find_deliveries(sessions, webhook_id, window, status=only_status)


@router.post(
    "/{webhook_id}/deliveries/{delivery_id}/retry",
    status_code=202,
    responses=documented(NotFound, WebhookDisabled, DeliveryNotDead),
)
async def retry_webhook_delivery(
    webhook_id: UUID,
    delivery_id: UUID,
    sessions: Sessions,
    queue: Queue,
    background: BackgroundTasks,
) -> DeliveryRead:
    """Send a delivery that was given up once more, at once, with the `webhook-id` it had."""
    delivery = await operations.retry(sessions, webhook_id, delivery_id)
    background.add_task(doorbell.ring_deliveries, queue)
    return delivery


@router.post("/{webhook_id}/test", status_code=202, responses=documented(NotFound, WebhookDisabled))
async def test_webhook(
    webhook_id: UUID, sessions: Sessions, queue: Queue, background: BackgroundTasks
) -> DeliveryRead:
    """Send an event of the type `lethe.webhook.test`, to try out the receiver."""
    delivery = await operations.test(sessions, webhook_id)
    background.add_task(doorbell.ring_deliveries, queue)
    return delivery
