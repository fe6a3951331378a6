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
    """Where to tell what becomes of deletion requests."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "url": "https://dsr.example.com/hooks/lethe",
                    "events": ["completed", "needs_review", "failed", "overdue"],
                }
            ]
        }
    )

    url: Url
    """An `https` URL in the public internet, without user, password and fragment."""

    description: Description | None = None
    events: Events | None = None
    """Statuses of deletion requests, and `overdue`. Left out: all, those to come too."""


class WebhookChange(In):
    """What is to change; what is left out stays."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"status": "disabled"}]})

    description: Description | None = None
    events: Events | None = None
    """`null` for all."""

    status: WebhookStatus | None = None
    """`disabled`: nothing is sent any more, and what waits is given up. `enabled`: what happens
    from now on is sent."""


class WebhookRead(Out):
    """An endpoint, without its secret."""

    id: UUID
    url: str
    description: str | None
    events: list[Event] | None
    """Null for all."""

    status: WebhookStatus
    disabled_reason: str | None
    previous_secret_until: Instant | None
    """Until when the secret before the last rotation signs too."""

    created_at: Instant


class WebhookCreated(WebhookRead):
    """An endpoint that was just registered, with its secret."""

    secret: str
    """It verifies signatures. It is shown here and never again."""


class SecretRotated(Out):
    """A new secret."""

    secret: str
    """It is shown here and never again."""

    previous_secret_until: Instant
    """Until then, everything is signed with the secret before as well."""


class DeliveryRead(Out):
    """One event for one endpoint, and what came of sending it."""

    id: UUID
    """The `webhook-id` it is sent with, at every attempt."""

    event: str
    """The type of the CloudEvent."""

    status: DeliveryStatus
    attempt: int
    """How often it was sent, or is being sent."""

    next_attempt_at: Instant | None
    """Null once it is delivered or given up."""

    response_status: int | None
    """What the endpoint answered last."""

    failure: DeliveryFailure | None
    """Why the last attempt failed. `status`: an answer other than 2xx; `redirect`: never followed;
    `gone`: 410, which disables the endpoint; `timeout`, `connection`, `tls`, `dns`: no answer;
    `address_refused`: its name stands for an address outside the public internet; `disabled`: the
    endpoint was disabled while it waited."""

    created_at: Instant
    finished_at: Instant | None
    """When it was delivered, or given up."""
