"""What goes into and comes out of the routes of webhooks."""

from typing import Annotated
from uuid import UUID

from pydantic import ConfigDict, Field, StringConstraints

from domain.states import DeliveryFailure, DeliveryStatus, Event, WebhookStatus
from service.fields import STORABLE, In, Instant, Out

Url = Annotated[str, StringConstraints(pattern=STORABLE, min_length=1, max_length=2048)]
Description = Annotated[str, Field(pattern=STORABLE, max_length=255)]
Events = Annotated[list[Event], Field(min_length=1, max_length=50)]


class WebhookCreate(In):
    """A URL that is to be told what becomes of deletion requests."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "url": "https://dsr.example.com/hooks/lethe",
                    "events": ["completed", "needs_review", "failed", "overdue", "rows_kept"],
                }
            ]
        }
    )

    url: Url
    """The URL that events are POSTed to: `https`, on the public internet, without user, password or
    fragment."""

    description: Description | None = None
    """A note for yourself, such as who runs the receiver."""

    events: Events | None = None
    """The events to send: statuses of deletion requests, `overdue`, and what became of the samples'
    rows in the files of a dataset that erases: `rows_erased` or `rows_kept`; and
    `memory_returned`, when the version that a request's job made brings back what the model had
    forgotten. Null, or left out, for all of them, including any that are added later."""


class WebhookChange(In):
    """What is to change about a webhook. Members that are left out stay as they are."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"status": "disabled"}]})

    description: Description | None = None
    """A note for yourself; null to remove it."""

    events: Events | None = None
    """The events to send: statuses of deletion requests, `overdue`, `rows_erased`, `rows_kept` and
    `memory_returned`. Null for all of them."""

    status: WebhookStatus | None = None
    """Whether events are sent: `disabled` stops sending and gives up what is waiting, `enabled`
    sends whatever happens from now on."""


class WebhookRead(Out):
    """A webhook, without its secret."""

    id: UUID
    """The webhook's id, used in its URL."""

    url: str
    """The URL that events are POSTed to."""

    description: str | None
    """Your note about the webhook; null if there is none."""

    events: list[Event] | None
    """The events that are sent; null for all of them."""

    status: WebhookStatus
    """Whether events are sent to the webhook."""

    disabled_reason: str | None
    """Why the webhook was disabled; null if it is enabled."""

    previous_secret_until: Instant | None
    """Until when events are also signed with the previous secret; null if the secret was not
    rotated lately."""

    created_at: Instant
    """When the webhook was registered."""


class WebhookCreated(WebhookRead):
    """A webhook that was just registered, with its secret."""

    secret: str
    """The secret that verifies signatures. It is shown here and never again, so store it now."""


class SecretRotated(Out):
    """A new secret, and how long the previous one remains valid."""

    secret: str
    """The new secret that verifies signatures. It is shown here and never again: store it now."""

    previous_secret_until: Instant
    """Until when events are also signed with the previous secret."""


class DeliveryRead(Out):
    """One event for one webhook, and what came of sending it."""

    id: UUID
    """The delivery's id, which is also the `webhook-id` header of every attempt."""

    event: str
    """The type of the CloudEvent, for example `lethe.deletion_request.completed`."""

    status: DeliveryStatus
    """Whether the delivery waits, has arrived or was given up."""

    attempt: int
    """How many times it has been sent, including an attempt in progress."""

    next_attempt_at: Instant | None
    """When it will be sent next; null once it has been delivered or given up."""

    response_status: int | None
    """The HTTP status that the receiver answered last; null if it has not answered."""

    failure: DeliveryFailure | None
    """Why the last attempt failed; null if it did not."""

    created_at: Instant
    """When the event happened."""

    finished_at: Instant | None
    """When the delivery arrived or was given up; null until then."""
