"""The routes of webhooks."""

from collections.abc import Sequence
from enum import Enum
from types import NoneType
from uuid import UUID

from lethe.calls import Call, Listed
from lethe.routes.building import get, pages, post
from lethe.routing import listing, route
from lethe.schemas.common import Page
from lethe.schemas.webhooks import (
    Delivery,
    DeliveryStatus,
    Event,
    NewSecret,
    NewWebhook,
    Webhook,
    WebhookStatus,
)

ONE = "/v1/webhooks/{webhook_id}"


class Left(Enum):
    """Stands for what is left as it is, where None has a meaning of its own."""

    ALONE = "alone"


class Webhooks:
    """Where to tell what becomes of deletion requests."""

    @route
    def register_webhook(
        self,
        url: str,
        *,
        events: Sequence[Event | str] | None = None,
        description: str | None = None,
    ) -> Call[NewWebhook]:
        """Have what becomes of deletion requests POSTed to a URL.

        Keep the secret of the result: it is shown once.

        Args:
            url: an `https` URL in the public internet.
            events: what to tell; everything unless given.
        """
        body = {"url": url, "events": _words(events), "description": description}
        return post("/v1/webhooks", NewWebhook, body)

    @listing
    def list_webhooks(self) -> Listed[Page[Webhook], Webhook]:
        """Webhooks, newest first."""
        return pages("/v1/webhooks", Page[Webhook])

    @route
    def read_webhook(self, webhook_id: UUID | str) -> Call[Webhook]:
        """One webhook: what it is told, whether it is enabled, and if not, why."""
        return get(ONE, Webhook, webhook_id=webhook_id)

    @route
    def change_webhook(
        self,
        webhook_id: UUID | str,
        *,
        events: Sequence[Event | str] | Left | None = Left.ALONE,
        description: str | Left | None = Left.ALONE,
        status: WebhookStatus | str | None = None,
    ) -> Call[Webhook]:
        """Enable or disable a webhook, or change what it is told. What is left out stays.

        Args:
            events: None for all events.
            description: None for no description.
        """
        changes = {
            "events": events if isinstance(events, Left) else _words(events),
            "description": description,
        }
        body = {name: value for name, value in changes.items() if value is not Left.ALONE}
        return Call(
            method="PATCH",
            path=ONE,
            places={"webhook_id": webhook_id},
            reads=Webhook,
            body={**body, "status": status},
            nulls=frozenset(body),
        )

    @route
    def delete_webhook(self, webhook_id: UUID | str) -> Call[None]:
        """Delete a webhook, with its deliveries and its secrets."""
        return Call(method="DELETE", path=ONE, places={"webhook_id": webhook_id}, reads=NoneType)

    @route
    def rotate_webhook_secret(self, webhook_id: UUID | str) -> Call[NewSecret]:
        """Make a new secret. For 24 hours everything is signed with both."""
        return post(f"{ONE}/rotate-secret", NewSecret, webhook_id=webhook_id)

    @listing
    def list_deliveries(
        self, webhook_id: UUID | str, *, status: DeliveryStatus | str | None = None
    ) -> Listed[Page[Delivery], Delivery]:
        """What was sent or is to be sent, newest first: all, or those of one status."""
        query = {"status": status}
        return pages(f"{ONE}/deliveries", Page[Delivery], query, webhook_id=webhook_id)

    @route
    def retry_delivery(self, webhook_id: UUID | str, delivery_id: UUID | str) -> Call[Delivery]:
        """Send a delivery that was given up once more, at once."""
        path = f"{ONE}/deliveries/{{delivery_id}}/retry"
        return post(path, Delivery, webhook_id=webhook_id, delivery_id=delivery_id)

    @route
    def test_webhook(self, webhook_id: UUID | str) -> Call[Delivery]:
        """Send an event of the type `lethe.webhook.test`, to try out the receiver."""
        return post(f"{ONE}/test", Delivery, webhook_id=webhook_id)


def _words(events: Sequence[Event | str] | None) -> list[str] | None:
    return None if events is None else [str(event) for event in events]
