"""The routes of webhooks. HTTP only."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, BackgroundTasks, Path, Query, Response

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

WebhookId = Annotated[UUID, Path(description="The id of the webhook.")]
DeliveryId = Annotated[UUID, Path(description="The id of the delivery.")]
OnlyStatus = Annotated[
    DeliveryStatus | None,
    Query(alias="status", description="Return only deliveries with this status."),
]


@router.post(
    "",
    summary="Register a webhook",
    status_code=201,
    responses=documented(DestinationRefused, WebhookExists, TooManyWebhooks),
)
async def register_webhook(
    body: WebhookCreate, sessions: Sessions, settings: Settings, response: Response
) -> WebhookCreated:
    """Have the events of deletion requests POSTed to a URL. Store the secret: it is shown once.

    Bodies are CloudEvents, signed as the Standard Webhooks specification describes. They contain
    the id, status, dates and models of a request, but no sample id, subject reference or reason.
    """
    webhook = await operations.register(sessions, body, settings=settings)
    response.headers["Location"] = f"/v1/webhooks/{webhook.id}"
    response.headers["Cache-Control"] = "no-store"
    return webhook


@router.get("", summary="List webhooks", responses=documented(InvalidCursor))
async def list_webhooks(sessions: Sessions, window: Paging) -> Page[WebhookRead]:
    """List all webhooks, newest first."""
    return await operations.find(sessions, window)


@router.get("/{webhook_id}", summary="Get a webhook", responses=documented(NotFound))
async def read_webhook(webhook_id: WebhookId, sessions: Sessions) -> WebhookRead:
    """Get one webhook: which events it gets, whether it is enabled, and if not, why."""
    return await operations.get(sessions, webhook_id)


@router.patch("/{webhook_id}", summary="Change a webhook", responses=documented(NotFound))
async def change_webhook(
    webhook_id: WebhookId, body: WebhookChange, sessions: Sessions
) -> WebhookRead:
    """Enable or disable a webhook, or change its events or its description. Members that are left
    out stay as they are."""
    return await operations.change(sessions, webhook_id, body)


@router.delete(
    "/{webhook_id}", summary="Delete a webhook", status_code=204, responses=documented(NotFound)
)
async def delete_webhook(webhook_id: WebhookId, sessions: Sessions) -> None:
    """Delete a webhook together with its deliveries and its secrets."""
    await operations.remove(sessions, webhook_id)


@router.post(
    "/{webhook_id}/rotate-secret",
    summary="Rotate the secret of a webhook",
    responses=documented(NotFound),
)
async def rotate_webhook_secret(
    webhook_id: WebhookId, sessions: Sessions, response: Response
) -> SecretRotated:
    """Create a new secret. For 24 hours every event is signed with both secrets, so that the
    receiver misses nothing while it changes over."""
    response.headers["Cache-Control"] = "no-store"
    return await operations.rotate_secret(sessions, webhook_id)


@router.get(
    "/{webhook_id}/deliveries",
    summary="List the deliveries of a webhook",
    responses=documented(NotFound, InvalidCursor),
)
async def list_webhook_deliveries(
    webhook_id: WebhookId, sessions: Sessions, window: Paging, only_status: OnlyStatus = None
) -> Page[DeliveryRead]:
    """List what was sent or is to be sent, newest first: all deliveries, or those with one status.

    Those that are `dead` were given up, and say why. Like those that are `delivered`, they are
    deleted after 30 days.
    """
    return await operations.find_deliveries(sessions, webhook_id, window, status=only_status)


@router.post(
    "/{webhook_id}/deliveries/{delivery_id}/retry",
    summary="Retry a delivery",
    status_code=202,
    responses=documented(NotFound, WebhookDisabled, DeliveryNotDead),
)
async def retry_webhook_delivery(
    webhook_id: WebhookId,
    delivery_id: DeliveryId,
    sessions: Sessions,
    queue: Queue,
    background: BackgroundTasks,
) -> DeliveryRead:
    """Send a delivery that was given up once more, without delay and with the same `webhook-id`."""
    delivery = await operations.retry(sessions, webhook_id, delivery_id)
    background.add_task(doorbell.ring_deliveries, queue)
    return delivery


@router.post(
    "/{webhook_id}/test",
    summary="Send a test event to a webhook",
    status_code=202,
    responses=documented(NotFound, WebhookDisabled),
)
async def test_webhook(
    webhook_id: WebhookId, sessions: Sessions, queue: Queue, background: BackgroundTasks
) -> DeliveryRead:
    """Send an event of the type `lethe.webhook.test`, so that you can try out the receiver."""
    delivery = await operations.test(sessions, webhook_id)
    background.add_task(doorbell.ring_deliveries, queue)
    return delivery
