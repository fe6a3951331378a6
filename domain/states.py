"""The states of requests, jobs, versions and registrations, and the lawful steps between them.

The database refuses every other step, whoever tries it.
"""

from enum import StrEnum
from typing import Literal


class RequestStatus(StrEnum):
    """Where a deletion request stands."""

    PENDING = "pending"
    SCHEDULED = "scheduled"
    RUNNING = "running"
    COMPLETED = "completed"
    NEEDS_REVIEW = "needs_review"
    FAILED = "failed"
    CANCELLED = "cancelled"
    REFUSED = "refused"


class JobStatus(StrEnum):
    """Where a job stands."""

    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class JobKind(StrEnum):
    """What a job does."""

    INDEX_DATASET = "index_dataset"
    REGISTER_MODEL = "register_model"
    TRAIN_REFERENCES = "train_references"
    UNLEARN = "unlearn"
    ESTIMATE = "estimate"
    PURGE = "purge"
    ERASE_ROWS = "erase_rows"
    CHECK_DATASET = "check_dataset"


BESIDE_OTHERS = frozenset({JobKind.ESTIMATE, JobKind.PURGE, JobKind.CHECK_DATASET})
"""They keep no other job waiting. A model has one open job at most of all other kinds together."""


class RegistrationStatus(StrEnum):
    """Where a dataset or a model stands between being named and being usable."""

    PENDING = "pending"
    READY = "ready"
    FAILED = "failed"


class VersionStatus(StrEnum):
    """Whether a model version is the one to serve, might become it, or holds forgotten data."""

    CANDIDATE = "candidate"
    CHAMPION = "champion"
    SUPERSEDED = "superseded"


class DerivedKind(StrEnum):
    """What is made from data, and so may hold what is to be forgotten."""

    WEIGHTS = "weights"
    STATISTICS = "statistics"
    RESERVOIR = "reservoir"
    CHECKPOINT = "checkpoint"
    OUT_OF_SAMPLE_PREDICTIONS = "out_of_sample_predictions"
    MEMBERSHIP_STATISTICS = "membership_statistics"
    SOURCE_WEIGHTS = "source_weights"


class Mode(StrEnum):
    """How a version came to be: trained without the samples, or changed to forget them."""

    APPROXIMATE = "approximate"
    EXACT = "exact"


class Verdict(StrEnum):
    """What the audit of a job's outcome says."""

    PASS = "pass"  # noqa: S105 (no password)
    FAIL = "fail"
    NO_POWER = "no_power"


class Decision(StrEnum):
    """What a person may decide when every attempt of a job got the verdict `fail`."""

    ACCEPT = "accept"
    RETRY = "retry"
    REFUSE = "refuse"


class Split(StrEnum):
    """What a sample was used for. Only `train` samples can be forgotten by a model."""

    TRAIN = "train"
    HOLDOUT = "holdout"
    TEST = "test"


class Objective(StrEnum):
    """What forgetting means: behave as if never trained on these, or lose the concept."""

    UNTRAIN_SAMPLES = "untrain_samples"
    REMOVE_CLASS = "remove_class"


class WebhookStatus(StrEnum):
    """Whether anything is sent to a webhook."""

    ENABLED = "enabled"
    DISABLED = "disabled"


class DeliveryStatus(StrEnum):
    """Where a delivery to a webhook stands."""

    WAITING = "waiting"
    DELIVERED = "delivered"
    DEAD = "dead"


class DeliveryFailure(StrEnum):
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


Event = RequestStatus | Literal["overdue"]
"""What webhooks are told of a deletion request: a status it came to, or that it is overdue."""

REQUEST_STEPS: dict[RequestStatus, frozenset[RequestStatus]] = {
    RequestStatus.PENDING: frozenset(
        {RequestStatus.SCHEDULED, RequestStatus.COMPLETED, RequestStatus.CANCELLED}
    ),
    RequestStatus.SCHEDULED: frozenset(
        {
            RequestStatus.PENDING,
            RequestStatus.RUNNING,
            RequestStatus.COMPLETED,
            RequestStatus.CANCELLED,
        }
    ),
    RequestStatus.RUNNING: frozenset(
        {
            RequestStatus.PENDING,
            RequestStatus.SCHEDULED,
            RequestStatus.COMPLETED,
            RequestStatus.NEEDS_REVIEW,
            RequestStatus.FAILED,
            RequestStatus.CANCELLED,
        }
    ),
    RequestStatus.NEEDS_REVIEW: frozenset(
        {RequestStatus.PENDING, RequestStatus.COMPLETED, RequestStatus.REFUSED}
    ),
    RequestStatus.FAILED: frozenset({RequestStatus.SCHEDULED, RequestStatus.CANCELLED}),
}
"""What is asked of one model: from each status to those that may follow; one without an entry is
final.

`running -> scheduled` is a worker that was lost or stopped; `running -> pending` a job that was
cancelled for another request's sake. The steps from `needs_review` are a person's decisions: retry,
accept, refuse. `failed -> scheduled` is an operator who has the job tried again.
"""

ENDED_REQUESTS = frozenset(
    {
        RequestStatus.COMPLETED,
        RequestStatus.FAILED,
        RequestStatus.CANCELLED,
        RequestStatus.REFUSED,
    }
)
OPEN_REQUESTS = frozenset(RequestStatus) - ENDED_REQUESTS
MOVING_REQUESTS = OPEN_REQUESTS - {RequestStatus.NEEDS_REVIEW}
"""Those that change without anybody doing anything."""

SUM_STEPS: dict[RequestStatus, frozenset[RequestStatus]] = {
    RequestStatus.PENDING: frozenset(
        {
            RequestStatus.SCHEDULED,
            RequestStatus.COMPLETED,
            RequestStatus.CANCELLED,
            RequestStatus.REFUSED,
        }
    ),
    RequestStatus.SCHEDULED: frozenset(
        {
            RequestStatus.PENDING,
            RequestStatus.RUNNING,
            RequestStatus.COMPLETED,
            RequestStatus.CANCELLED,
            RequestStatus.REFUSED,
        }
    ),
    RequestStatus.RUNNING: frozenset(RequestStatus) - {RequestStatus.RUNNING},
    RequestStatus.NEEDS_REVIEW: frozenset(RequestStatus) - {RequestStatus.NEEDS_REVIEW},
    RequestStatus.FAILED: frozenset(
        {
            RequestStatus.SCHEDULED,
            RequestStatus.RUNNING,
            RequestStatus.CANCELLED,
            RequestStatus.REFUSED,
        }
    ),
}
"""The same for a request as a whole, which sums up what it asks of several models."""

FINAL_REQUESTS = frozenset(RequestStatus) - SUM_STEPS.keys()
"""From which a request never comes back: nobody needs the ids it named any more."""

JOB_STEPS: dict[JobStatus, frozenset[JobStatus]] = {
    JobStatus.QUEUED: frozenset({JobStatus.RUNNING, JobStatus.CANCELLED}),
    JobStatus.RUNNING: frozenset(
        {JobStatus.QUEUED, JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED}
    ),
    JobStatus.FAILED: frozenset({JobStatus.QUEUED}),
}
OPEN_JOBS = frozenset({JobStatus.QUEUED, JobStatus.RUNNING})

VERSION_STEPS: dict[VersionStatus, frozenset[VersionStatus]] = {
    VersionStatus.CANDIDATE: frozenset({VersionStatus.CHAMPION, VersionStatus.SUPERSEDED}),
    VersionStatus.CHAMPION: frozenset({VersionStatus.SUPERSEDED}),
}
"""A version that was superseded holds what was to be forgotten: it is never served again."""


def sources(target: RequestStatus) -> list[RequestStatus]:
    """The statuses from which a request may step to `target`: the condition of its UPDATE."""
    return [status for status, steps in REQUEST_STEPS.items() if target in steps]


DELIVERY_STEPS: dict[DeliveryStatus, frozenset[DeliveryStatus]] = {
    DeliveryStatus.WAITING: frozenset({DeliveryStatus.DELIVERED, DeliveryStatus.DEAD}),
    DeliveryStatus.DEAD: frozenset({DeliveryStatus.WAITING}),
}
"""`dead -> waiting` is a person who has it tried once more."""


def delivery_sources(target: DeliveryStatus) -> list[DeliveryStatus]:
    """As `sources`, for deliveries to webhooks."""
    return [status for status, steps in DELIVERY_STEPS.items() if target in steps]
