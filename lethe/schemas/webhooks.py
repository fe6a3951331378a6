"""Webhooks: where they go, and what came of sending them."""

from datetime import datetime
from uuid import UUID

from lethe.schemas.common import Result, Word


class Event(Word):
    """What webhooks can be told of: statuses of deletion requests, `overdue`, and what became
    of rows in the dataset's files."""

    PENDING = "pending"
    SCHEDULED = "scheduled"
    RUNNING = "running"
    COMPLETED = "completed"
    NEEDS_REVIEW = "needs_review"
    FAILED = "failed"
    CANCELLED = "cancelled"
    REFUSED = "refused"
    OVERDUE = "overdue"
    ROWS_ERASED = "rows_erased"
    ROWS_KEPT = "rows_kept"
    MEMORY_RETURNED = "memory_returned"


class WebhookStatus(Word):
    """Whether anything is sent to a webhook."""

    ENABLED = "enabled"
    DISABLED = "disabled"


class Webhook(Result):
    """An endpoint, without its secret."""

    id: UUID
    url: str
    description: str | None
    events: list[Event] | None
    """None for all."""

    status: WebhookStatus
    disabled_reason: str | None
    previous_secret_until: datetime | None
    """Until when the secret before the last rotation signs too."""

    created_at: datetime


class NewWebhook(Webhook):
    """An endpoint that was just registered, with its secret."""

    secret: str
    """It verifies signatures. It is shown here and never again."""


class NewSecret(Result):
    """A new secret; for a while the one before it signs too."""

    secret: str
    """It is shown here and never again."""

    previous_secret_until: datetime


class DeliveryStatus(Word):
    """Where a delivery stands."""

    WAITING = "waiting"
    DELIVERED = "delivered"
    DEAD = "dead"


class DeliveryFailure(Word):
    """Why the last attempt of a delivery came to nothing."""

    STATUS = "status"
    REDIRECT = "redirect"
    GONE = "gone"
    TIMEOUT = "timeout"
    CONNECTION = "connection"
    TLS = "tls"
    DNS = "dns"
    ADDRESS_REFUSED = "address_refused"
    DISABLED = "disabled"


class Delivery(Result):
    """One event for one endpoint, and what came of sending it."""

    id: UUID
    """The `webhook-id` that it is sent with, at every attempt."""

    event: str
    status: DeliveryStatus
    attempt: int
    next_attempt_at: datetime | None
    """None once it is delivered or given up."""

    response_status: int | None
    failure: DeliveryFailure | None
    created_at: datetime
    finished_at: datetime | None
