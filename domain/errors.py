"""What can go wrong that a caller can act on. Imports nothing, so that every layer may raise."""

from collections.abc import Mapping
from typing import ClassVar


class DomainError(Exception):
    """A failure the caller can understand and act on; anything else is a bug.

    Subclasses say what went wrong once and for all (`slug`, `title`, `status`);
    the instance says what went wrong this time and what to do about it (`detail`),
    with further machine-readable members in `extra`.
    """

    slug: ClassVar[str]
    title: ClassVar[str]
    status: ClassVar[int]
    headers: Mapping[str, str] = {}

    def __init__(self, detail: str, **extra: object) -> None:
        super().__init__(detail)
        self.detail = detail
        self.extra = extra


class Unauthorized(DomainError):
    slug, title, status = "unauthorized", "A valid key is needed", 401
    headers = {"WWW-Authenticate": "Bearer"}  # noqa: RUF012 (a Mapping in the base class)


class InvalidRequest(DomainError):
    slug, title, status = "invalid-request", "The request is not valid", 422


class NotFound(DomainError):
    slug, title, status = "not-found", "No such resource", 404


class NameTaken(DomainError):
    slug, title, status = "name-taken", "The name stands for something else", 409


class NotReady(DomainError):
    slug, title, status = "not-ready", "Not ready yet", 409


class UnknownSamples(DomainError):
    slug, title, status = "unknown-samples", "Unknown sample ids", 422


class TooManySamples(DomainError):
    slug, title, status = "too-many-samples", "Too many sample ids", 413


class BodyTooLarge(DomainError):
    slug, title, status = "body-too-large", "The body is too large", 413


class IdempotencyKeyMissing(DomainError):
    slug, title, status = "idempotency-key-missing", "An Idempotency-Key is needed", 400


class IdempotencyKeyReused(DomainError):
    slug, title, status = "idempotency-key-reused", "Idempotency key reused", 422


class IdempotencyKeyInFlight(DomainError):
    slug, title, status = "idempotency-key-in-flight", "The same request is being answered", 409
    headers = {"Retry-After": "1"}  # noqa: RUF012


class LocationRefused(DomainError):
    slug, title, status = "location-refused", "The URI may not be read", 422


class WeightsRefused(DomainError):
    slug, title, status = "weights-refused", "Only safetensors weights are accepted", 422


class FactoryRefused(DomainError):
    slug, title, status = "factory-refused", "The factory is not on the allow-list", 422


class RecipeRefused(DomainError):
    slug, title, status = "recipe-refused", "The recipe is not on the allow-list", 422


class NoRecipe(DomainError):
    slug, title, status = "no-recipe", "A model cannot be retrained", 422


class NothingToDecide(DomainError):
    slug, title, status = "nothing-to-decide", "No decision is waited for", 409


class CannotCancel(DomainError):
    slug, title, status = "cannot-cancel", "Too late to cancel", 409


class CannotRetry(DomainError):
    slug, title, status = "cannot-retry", "The job cannot be tried again", 409


class NotNamed(DomainError):
    slug, title, status = "not-named", "The request did not name this sample", 404


class KeyGone(DomainError):
    slug, title, status = "key-gone", "The key of the request is gone", 410


class CannotShred(DomainError):
    slug, title, status = "cannot-shred", "Too early to shred", 409


class ChampionChanged(DomainError):
    slug, title, status = "champion-changed", "The champion changed since", 409


class NotServable(DomainError):
    slug, title, status = "not-servable", "The version may not be served", 409


class WeightsUnavailable(DomainError):
    slug, title, status = "weights-unavailable", "The weights cannot be read", 503


class RangeNotSatisfiable(DomainError):
    slug, title, status = "range-not-satisfiable", "The range lies outside the file", 416

    def __init__(self, detail: str, *, size: int) -> None:
        super().__init__(detail, size=size)
        self.headers = {"Content-Range": f"bytes */{size}"}


class NotCertifiedYet(DomainError):
    slug, title, status = "not-certified-yet", "There is no certificate yet", 409
    headers = {"Retry-After": "5"}  # noqa: RUF012


class NotCertified(DomainError):
    slug, title, status = "not-certified", "There is no certificate of this ending", 404


class DestinationRefused(DomainError):
    slug, title, status = "destination-refused", "Nothing may be sent there", 422


class WebhookExists(DomainError):
    slug, title, status = "webhook-exists", "The URL is registered already", 409


class TooManyWebhooks(DomainError):
    slug, title, status = "too-many-webhooks", "There are too many webhooks", 409


class WebhookDisabled(DomainError):
    slug, title, status = "webhook-disabled", "The webhook is disabled", 409


class DeliveryNotDead(DomainError):
    slug, title, status = "delivery-not-dead", "The delivery was not given up", 409


class NoCheckpoint(DomainError):
    slug, title, status = "no-checkpoint", "There is no checkpoint yet", 409
    headers = {"Retry-After": "5"}  # noqa: RUF012


class SizeUnknown(DomainError):
    slug, title, status = "size-unknown", "The log was never of this size", 422


class InvalidCursor(DomainError):
    slug, title, status = "invalid-cursor", "The cursor is not valid", 422


class Unavailable(DomainError):
    slug, title, status = "unavailable", "A part the service needs does not answer", 503
    headers = {"Retry-After": "5"}  # noqa: RUF012


class JobError(Exception):
    """A job cannot be done, however often it is tried: the input is at fault, not the machine.

    The message is stored with the job and read by people: it says what is wrong and what to do,
    and names no sample.
    """


class LeaseLost(Exception):
    """Another worker has the job: this one must stop and write nothing more."""


class JobEnded(LeaseLost):
    """This very attempt has ended the job already; the commit was not acknowledged, but made."""


class StoreUnwritable(Exception):
    """A file could not be written: the machine is at fault, and another attempt may succeed."""


class Stopped(Exception):
    """The worker is to end: the job is where it can go on, and is given back."""
