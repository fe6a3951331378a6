"""What can go wrong that a caller can act on. Imports nothing, so that every layer may raise."""

from collections.abc import Mapping
from typing import ClassVar


class DomainError(Exception):
    """A failure the caller can understand and act on; anything else is a bug.

    A subclass names the kind of failure once and for all: `slug`, `title`, `status`, and its
    docstring, which the OpenAPI document quotes. The instance says what went wrong this time and
    what to do about it (`detail`), with further machine-readable members in `extra`.
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
    """The `Authorization` header is missing, or its key is not the one of this installation."""

    slug, title, status = "unauthorized", "A valid key is needed", 401
    headers = {"WWW-Authenticate": "Bearer"}  # noqa: RUF012 (a Mapping in the base class)


class TooManyAttempts(DomainError):
    """Requests without a valid key came too often from one address. One with a valid key is still
    answered."""

    slug, title, status = "too-many-attempts", "Too many requests without a valid key", 429

    def __init__(self, detail: str, *, wait_s: int) -> None:
        super().__init__(detail)
        self.headers = {"WWW-Authenticate": "Bearer", "Retry-After": str(wait_s)}


class InvalidRequest(DomainError):
    """The body, a parameter or a header is not what the route expects."""

    slug, title, status = "invalid-request", "The request is not valid", 422


class NotFound(DomainError):
    """Nothing exists under this name or id."""

    slug, title, status = "not-found", "No such resource", 404


class NameTaken(DomainError):
    """The name is already registered with another definition."""

    slug, title, status = "name-taken", "The name is already taken", 409


class NotReady(DomainError):
    """A dataset or model that is needed has not been made ready yet."""

    slug, title, status = "not-ready", "Not ready yet", 409


class ModelBusy(DomainError):
    """Something else is done to the model, and this has to wait for it."""

    slug, title, status = "model-busy", "The model is at work", 409


class DatasetBusy(DomainError):
    """A job changes the index of the dataset, and this has to wait for it."""

    slug, title, status = "dataset-busy", "The dataset is at work", 409


class InUse(DomainError):
    """Something that is open, or that is there, still needs it."""

    slug, title, status = "in-use", "It is still needed", 409


class Deleted(DomainError):
    """It was deleted. What the evidence says of it stays."""

    slug, title, status = "deleted", "It was deleted", 410


class UnknownSamples(DomainError):
    """Some of the sample ids are not in the dataset."""

    slug, title, status = "unknown-samples", "Unknown sample ids", 422


class UnknownSubjects(DomainError):
    """The dataset has no sample of some of the subjects."""

    slug, title, status = "unknown-subjects", "Unknown subjects", 422


class NoGroups(DomainError):
    """The dataset has no group column, so that nobody knows which samples are a subject's."""

    slug, title, status = "no-groups", "The dataset does not know whose its samples are", 422


class TooManySamples(DomainError):
    """The request names more samples or subjects than are allowed at once."""

    slug, title, status = "too-many-samples", "Too many samples", 413


class BodyTooLarge(DomainError):
    """The body is larger than the service accepts."""

    slug, title, status = "body-too-large", "The body is too large", 413


class BodyUnreadable(DomainError):
    """The body is not in UTF-8, nested too deeply, or has a number that is too long."""

    slug, title, status = "bad-request", "Bad Request", 400


class BodyTooSlow(DomainError):
    """The body did not arrive in time."""

    slug, title, status = "body-too-slow", "The body did not arrive in time", 408
    headers = {"Connection": "close"}  # noqa: RUF012


class BodyEncoded(DomainError):
    """The body is compressed, or encoded in another way, which the service does not undo."""

    slug, title, status = "body-encoded", "The body must not be encoded", 415
    headers = {"Accept-Encoding": "identity"}  # noqa: RUF012


class IdempotencyKeyMissing(DomainError):
    """The `Idempotency-Key` header is missing or malformed."""

    slug, title, status = "idempotency-key-missing", "An Idempotency-Key is needed", 400


class IdempotencyKeyReused(DomainError):
    """A request with this key but a different body was sent before."""

    slug, title, status = "idempotency-key-reused", "Idempotency key reused", 422


class IdempotencyKeyInFlight(DomainError):
    """The first request with this key has not been answered yet."""

    slug, title, status = "idempotency-key-in-flight", "The same request is being answered", 409
    headers = {"Retry-After": "1"}  # noqa: RUF012


class LocationRefused(DomainError):
    """The URI is not one that the service may read from."""

    slug, title, status = "location-refused", "The URI may not be read", 422


class WeightsRefused(DomainError):
    """The weights are in a format that could run code when it is loaded."""

    slug, title, status = "weights-refused", "Only safetensors weights are accepted", 422


class FactoryRefused(DomainError):
    """LETHE_FACTORIES does not allow this function."""

    slug, title, status = "factory-refused", "The factory is not on the allow-list", 422


class RecipeRefused(DomainError):
    """LETHE_RECIPES does not allow this function."""

    slug, title, status = "recipe-refused", "The recipe is not on the allow-list", 422


class PreprocessingRefused(DomainError):
    """The model's preprocessing does not fit the inputs of its dataset."""

    slug, title, status = "preprocessing-refused", "The preprocessing does not fit the inputs", 422


class NoRecipe(DomainError):
    """The request asks for retraining, and a model has no recipe for it."""

    slug, title, status = "no-recipe", "The model cannot be retrained", 422


class NothingToDecide(DomainError):
    """The request does not await a decision."""

    slug, title, status = "nothing-to-decide", "No decision is pending", 409


class CannotCancel(DomainError):
    """The request has already come to its end."""

    slug, title, status = "cannot-cancel", "Too late to cancel", 409


class CannotRetry(DomainError):
    """Only a failed job can be retried, and only if nothing has taken its place."""

    slug, title, status = "cannot-retry", "The job cannot be retried", 409


class NotNamed(DomainError):
    """The sample id or the subject is not among those that the request named."""

    slug, title, status = "not-named", "The request did not name this", 404


class KeyGone(DomainError):
    """The request was shredded, so nothing links it to sample ids any more."""

    slug, title, status = "key-gone", "The request's key is gone", 410


class CannotShred(DomainError):
    """The request has not come to its end, and its contents are still needed."""

    slug, title, status = "cannot-shred", "Too early to shred", 409


class NotServable(DomainError):
    """The version is not the champion of its model."""

    slug, title, status = "not-servable", "The version may not be served", 409


class WeightsUnavailable(DomainError):
    """The file with the weights is missing from the store or cannot be read."""

    slug, title, status = "weights-unavailable", "The weights cannot be read", 503


class RangeNotSatisfiable(DomainError):
    """The requested range begins after the end of the file."""

    slug, title, status = "range-not-satisfiable", "The range lies outside the file", 416

    def __init__(self, detail: str, *, size: int) -> None:
        super().__init__(detail, size=size)
        self.headers = {"Content-Range": f"bytes */{size}"}


class NotCertifiedYet(DomainError):
    """The certificate will be issued once the request is completed and the log is signed."""

    slug, title, status = "not-certified-yet", "There is no certificate yet", 409
    headers = {"Retry-After": "5"}  # noqa: RUF012


class NotCertified(DomainError):
    """The request ended in a way that gets no certificate."""

    slug, title, status = "not-certified", "This outcome is not certified", 404


class DestinationRefused(DomainError):
    """The URL is not one that webhooks may be sent to."""

    slug, title, status = "destination-refused", "Nothing may be sent there", 422


class WebhookExists(DomainError):
    """There is already a webhook with this URL."""

    slug, title, status = "webhook-exists", "The URL is already registered", 409


class TooManyWebhooks(DomainError):
    """The service has as many webhooks as it allows."""

    slug, title, status = "too-many-webhooks", "There are too many webhooks", 409


class WebhookDisabled(DomainError):
    """Nothing is sent to a webhook while it is disabled."""

    slug, title, status = "webhook-disabled", "The webhook is disabled", 409


class DeliveryNotDead(DomainError):
    """Only a delivery that was given up can be retried."""

    slug, title, status = "delivery-not-dead", "The delivery was not given up", 409


class NoCheckpoint(DomainError):
    """The audit trail has not been signed yet."""

    slug, title, status = "no-checkpoint", "There is no checkpoint yet", 409
    headers = {"Retry-After": "5"}  # noqa: RUF012


class SizeUnknown(DomainError):
    """The log is shorter than the size or position that was given."""

    slug, title, status = "size-unknown", "The log never had this size", 422


class InvalidCursor(DomainError):
    """The cursor does not come from this list."""

    slug, title, status = "invalid-cursor", "The cursor is not valid", 422


class Unavailable(DomainError):
    """The database does not answer, or its schema is not the one this service needs."""

    slug, title, status = "unavailable", "A part the service needs does not answer", 503
    headers = {"Retry-After": "5"}  # noqa: RUF012


def no_such(what: str, *, listed_at: str) -> NotFound:
    """Nothing exists under the name or id in `what`; says which route lists what does."""
    return NotFound(f"There is no {what}. `GET {listed_at}` lists those that exist.")


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
