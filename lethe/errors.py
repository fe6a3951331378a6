"""What can go wrong, as exceptions that a program can branch on.

LetheError
├── Problem               the service refused: a problem document (RFC 9457)
│   ├── Invalid           400, 415, 416, 422: the request must be changed
│   │   ├── UnknownSamples
│   │   └── UnknownSubjects
│   ├── Unauthorized      401, 403: the key
│   ├── NotFound          404
│   ├── Conflict          409: not in this state
│   │   └── NotYet        the same request may succeed later
│   ├── Gone              410
│   ├── TooLarge          408, 413: send smaller pieces
│   ├── Busy              429
│   ├── Unavailable       502, 503, 504: the service cannot answer now
│   └── ServiceFailed     any other 5xx: a bug of the service
├── Unreachable           no answer at all
├── NotUnderstood         an answer that is not the API's
├── InsecureAddress       the key would travel unencrypted
├── StillWaiting          `wait` ran out of time
├── WeightsDiffer         downloaded weights are not those that the service names
└── WebhookRefused        a webhook is not signed by the service
"""

from collections.abc import Mapping
from typing import Any, ClassVar

PREFIX = "urn:lethe:problem:"


class LetheError(Exception):
    """Anything that this package raises on purpose. Its text says what to do."""


class Problem(LetheError):
    """The service understood the request and refused it, or could not carry it out."""

    def __init__(
        self,
        status: int,
        members: Mapping[str, Any],
        *,
        idempotency_key: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        self.status = status
        self.type = str(members.get("type", "about:blank"))
        """What went wrong, to be matched on: `urn:lethe:problem:…`."""

        self.title = str(members.get("title", f"HTTP {status}"))
        self.detail = str(members.get("detail", self.title))
        """What to do about it, for people."""

        self.errors: list[dict[str, Any]] = _errors(members.get("errors"))
        """Which fields are not valid: `loc` and `msg` of each."""

        self.members = dict(members)
        """The whole document."""

        self.idempotency_key = idempotency_key
        """What the request was sent with; send it again with the same one."""

        self.retry_after = retry_after
        """Seconds after which the service suggests to ask again."""

        super().__init__(f"{self.title}: {self.detail}")

    @property
    def slug(self) -> str:
        """The last part of `type`, such as `not-ready`."""
        return self.type.removeprefix(PREFIX)


class Invalid(Problem):
    """The request must be changed: see `detail` and `errors`."""


class UnknownSamples(Invalid):
    """Some ids are not in the dataset. Nothing was stored."""

    @property
    def unknown_count(self) -> int:
        return int(self.members.get("unknown_count", 0))

    @property
    def unknown_ids(self) -> list[str]:
        """The first 100 of them. They are personal data: keep them out of logs."""
        return [str(sample_id) for sample_id in self.members.get("unknown_ids", [])]


class UnknownSubjects(Invalid):
    """The dataset has no sample of some of the subjects. Nothing was stored."""

    @property
    def unknown_count(self) -> int:
        return int(self.members.get("unknown_count", 0))

    @property
    def unknown_positions(self) -> list[int]:
        """Where the first 100 of them stand in the list that was sent, from 0."""
        return [int(position) for position in self.members.get("unknown_positions", [])]


class Unauthorized(Problem):
    """The key is missing, wrong, or not allowed to do this."""


class NotFound(Problem):
    """There is no such thing."""


class Conflict(Problem):
    """It is not in the state for this."""


class NotYet(Conflict):
    """Not now, but the same request may succeed later."""

    slugs: ClassVar = frozenset({
        "not-ready", "model-busy", "dataset-busy", "not-certified-yet", "no-checkpoint",
        "idempotency-key-in-flight",
    })  # fmt: skip


class Gone(Problem):
    """It was destroyed."""


class TooLarge(Problem):
    """Too much at once; send several smaller requests."""


class Busy(Problem):
    """Too many requests; ask again after `retry_after` seconds."""


class Unavailable(Problem):
    """The service, or a part that it needs, cannot answer now."""


class ServiceFailed(Problem):
    """A bug of the service; its log has the details."""


class Unreachable(LetheError):
    """There was no answer."""

    def __init__(
        self, reason: str, *, may_have_arrived: bool, idempotency_key: str | None = None
    ) -> None:
        super().__init__(reason)
        self.may_have_arrived = may_have_arrived
        """Whether the service may have carried the request out all the same."""

        self.idempotency_key = idempotency_key


class NotUnderstood(LetheError):
    """The answer is not one of this API: check the URL, and the versions of client and service."""


class NotSent(LetheError, ValueError):
    """What was given cannot be right, so that nothing was sent."""


class InsecureAddress(NotSent):
    """The key would be readable on the network."""


class StillWaiting(LetheError, TimeoutError):
    """What was waited for goes on; `subject` is how it was last seen."""

    def __init__(self, reason: str, subject: Any) -> None:
        super().__init__(reason)
        self.subject = subject


class WeightsDiffer(LetheError):
    """The bytes are not the ones that the service names. No file was left."""


class WebhookRefused(LetheError):
    """The signature does not hold, or the message is too old. Answer with 400 or 401."""


BY_STATUS: Mapping[int, type[Problem]] = {
    400: Invalid,
    401: Unauthorized,
    403: Unauthorized,
    404: NotFound,
    408: TooLarge,
    409: Conflict,
    410: Gone,
    413: TooLarge,
    415: Invalid,
    416: Invalid,
    422: Invalid,
    429: Busy,
    502: Unavailable,
    503: Unavailable,
    504: Unavailable,
}


def problem_type(status: int, slug: str) -> type[Problem]:
    """The exception that stands for a problem document."""
    if slug == "unknown-samples":
        return UnknownSamples
    if slug == "unknown-subjects":
        return UnknownSubjects
    if status == 409 and slug in NotYet.slugs:
        return NotYet
    return BY_STATUS.get(status, ServiceFailed if status >= 500 else Problem)


def _errors(found: object) -> list[dict[str, Any]]:
    return [dict(error) for error in found] if isinstance(found, list) else []
