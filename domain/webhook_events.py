"""The events about webhooks, apart from `domain.events` for its length. The same rules hold."""

from domain.event import Event


class WebhookRegistered(Event, event="webhook.registered", about="webhook"):
    """A webhook was registered."""


class WebhookEnabled(Event, event="webhook.enabled", about="webhook"):
    """A disabled webhook is told of events again."""


class WebhookDisabled(Event, event="webhook.disabled", about="webhook"):
    """A webhook is sent nothing any more."""

    why: str


class WebhookDeleted(Event, event="webhook.deleted", about="webhook"):
    """A webhook was deleted, with its deliveries."""


class WebhookSecretRotated(Event, event="webhook.secret_rotated", about="webhook"):
    """A webhook got a new secret."""
