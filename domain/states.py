"""The states of requests, jobs, versions and registrations, and the lawful steps between them.

The database refuses every other step, whoever tries it.
"""

from enum import StrEnum
from typing import Literal


class RequestStatus(StrEnum):
    """How far a deletion request is.

    - `pending`: accepted, and waiting for a job.
    - `scheduled`: assigned to a job that waits for a worker.
    - `running`: a worker is unlearning.
    - `completed`: the samples have been forgotten, or there was nothing to forget.
    - `needs_review`: the audit's verdict was `fail`, and a person must decide.
    - `failed`: the job failed; it can be retried.
    - `cancelled`: taken back before it was answered.
    - `refused`: a person decided that the samples stay.
    """

    PENDING = "pending"
    SCHEDULED = "scheduled"
    RUNNING = "running"
    COMPLETED = "completed"
    NEEDS_REVIEW = "needs_review"
    FAILED = "failed"
    CANCELLED = "cancelled"
    REFUSED = "refused"


class JobStatus(StrEnum):
    """How far a job is.

    - `queued`: waiting for a worker.
    - `running`: a worker has it.
    - `completed`: done; an unlearning job has a verdict.
    - `failed`: it could not be done, and its `failure` says why.
    - `cancelled`: stopped because nobody needs its result any more.
    """

    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class JobKind(StrEnum):
    """What a job does.

    - `index_dataset`: reads a dataset's files and stores which samples they contain.
    - `index_state`: does so with another state of a dataset, and finds what is different in it.
    - `register_model`: loads a model's weights and measures what its jobs need.
    - `register_version`: does so with weights of the same model that were trained elsewhere.
    - `train_references`: trains the reference models that a policy asks for.
    - `unlearn`: makes a model version that has forgotten samples.
    - `estimate`: predicts what a deletion request would take, and changes nothing.
    - `purge`: deletes the files of superseded versions.
    - `erase_rows`: deletes the rows of forgotten samples from a dataset's files.
    - `check_dataset`: finds the rows of a file that may not be trained on.
    """

    INDEX_DATASET = "index_dataset"
    INDEX_STATE = "index_state"
    REGISTER_MODEL = "register_model"
    REGISTER_VERSION = "register_version"
    TRAIN_REFERENCES = "train_references"
    UNLEARN = "unlearn"
    ESTIMATE = "estimate"
    PURGE = "purge"
    ERASE_ROWS = "erase_rows"
    CHECK_DATASET = "check_dataset"


BESIDE_OTHERS = frozenset(
    {JobKind.ESTIMATE, JobKind.PURGE, JobKind.CHECK_DATASET, JobKind.TRAIN_REFERENCES}
)
"""They may be open beside another job of their model, which has one at most of all other kinds
together. For the training of reference models requests wait all the same, unless they are pressing:
see the planner."""


class RegistrationStatus(StrEnum):
    """How far a registration is.

    - `pending`: a job is still working on it.
    - `ready`: it can be used.
    - `failed`: it could not be registered, and `failure` says why.
    - `deleted`: it is not used any more; what was stored of it is purged, but for the evidence.
    """

    PENDING = "pending"
    READY = "ready"
    FAILED = "failed"
    DELETED = "deleted"


WITHOUT_VERSIONS = (RegistrationStatus.FAILED, RegistrationStatus.DELETED)
"""A model of these statuses knows nothing: it has no version that is or will be served."""


class VersionStatus(StrEnum):
    """Whether a model version may be served.

    - `champion`: the version to serve.
    - `candidate`: made by a job with the verdict `fail`; it awaits a person's decision.
    - `superseded`: it holds forgotten data, or was refused, and is never served again.
    """

    CANDIDATE = "candidate"
    CHAMPION = "champion"
    SUPERSEDED = "superseded"


class DerivedKind(StrEnum):
    """What is made from data and may therefore hold what is to be forgotten.

    - `weights`: the weights of a version.
    - `statistics`: moments of its features and what was measured on the hold-out.
    - `reservoir`: samples kept for the jobs of the model.
    - `features`: what enters the head of a frozen backbone, for every training sample.
    - `checkpoint`: the state of a running job, from which another attempt can go on.
    - `out_of_sample_predictions`: what reference models answered to samples they never saw.
    - `membership_statistics`: how confident reference models are with and without a sample.
    - `near_duplicates`: which samples are nearly the same as others.
    - `source_weights`: the file the model, or a version of it, was registered from.
    """

    WEIGHTS = "weights"
    STATISTICS = "statistics"
    RESERVOIR = "reservoir"
    FEATURES = "features"
    CHECKPOINT = "checkpoint"
    OUT_OF_SAMPLE_PREDICTIONS = "out_of_sample_predictions"
    MEMBERSHIP_STATISTICS = "membership_statistics"
    NEAR_DUPLICATES = "near_duplicates"
    SOURCE_WEIGHTS = "source_weights"


class Mode(StrEnum):
    """How a version was made.

    - `exact`: trained without the samples that were to be forgotten.
    - `approximate`: changed to forget them.
    """

    APPROXIMATE = "approximate"
    EXACT = "exact"


class Verdict(StrEnum):
    """What the audit found about the version that a job made.

    - `pass`: the samples' influence is within the range of models never trained on them, or the
      model was retrained without them.
    - `fail`: the samples can still be told apart, or the model lost more than its policy allows.
    - `no_power`: the tests cannot tell, because the model before would not have failed them either,
      or because they cannot speak for these samples.
    """

    PASS = "pass"  # noqa: S105 (no password)
    FAIL = "fail"
    NO_POWER = "no_power"
    """The tests say nothing, whatever they found."""

    @classmethod
    def of(cls, *, fails: bool, has_power: bool) -> "Verdict":
        """The word for what an audit found: whether a test fails after the job, and whether the
        tests could tell the samples before it."""
        if fails:
            return cls.FAIL
        return cls.PASS if has_power else cls.NO_POWER


class RowsStatus(StrEnum):
    """What has become of the rows of forgotten samples in the files of a dataset that erases.

    - `waiting`: they are still there; a job that erases them waits or runs.
    - `failed`: they are still there; the job that was to erase them failed.
    - `held`: some are still there, as another model of the dataset has yet to forget them.
    - `gone`: none is left.
    """

    WAITING = "waiting"
    FAILED = "failed"
    HELD = "held"
    GONE = "gone"


class Decision(StrEnum):
    """What a person may decide when every round of a job got the verdict `fail`.

    - `accept`: serve the candidate in spite of its verdict.
    - `retry`: try again.
    - `refuse`: leave the samples in the model.
    """

    ACCEPT = "accept"
    RETRY = "retry"
    REFUSE = "refuse"


class Split(StrEnum):
    """What a sample was used for. Only `train` samples can be forgotten by a model."""

    TRAIN = "train"
    HOLDOUT = "holdout"
    TEST = "test"


class Objective(StrEnum):
    """What forgetting means.

    - `untrain_samples`: the model behaves as if it had never been trained on the samples.
    - `remove_class`: the model no longer knows the class of the samples.
    """

    UNTRAIN_SAMPLES = "untrain_samples"
    REMOVE_CLASS = "remove_class"


class WebhookStatus(StrEnum):
    """Whether events are sent to a webhook.

    - `enabled`: events are sent.
    - `disabled`: nothing is sent, and `disabled_reason` says why.
    """

    ENABLED = "enabled"
    DISABLED = "disabled"


class DeliveryStatus(StrEnum):
    """How far a delivery to a webhook is.

    - `waiting`: it will be sent, for the first time or again.
    - `delivered`: the receiver answered with a 2xx status.
    - `dead`: it was given up; it can be retried by hand.
    """

    WAITING = "waiting"
    DELIVERED = "delivered"
    DEAD = "dead"


class DeliveryFailure(StrEnum):
    """Why the last attempt of a delivery failed.

    - `status`: the receiver answered with a status other than 2xx.
    - `redirect`: it answered with a redirect, which is never followed.
    - `gone`: it answered 410, which disables the webhook.
    - `timeout`: it did not answer in time.
    - `connection`: no connection could be made, or it broke.
    - `tls`: the TLS handshake failed, for example because of an invalid certificate.
    - `dns`: the host name could not be resolved.
    - `address_refused`: the host name resolves to an address outside the public internet.
    - `disabled`: the webhook was disabled while the delivery waited.
    """

    STATUS = "status"
    REDIRECT = "redirect"
    GONE = "gone"
    TIMEOUT = "timeout"
    CONNECTION = "connection"
    TLS = "tls"
    DNS = "dns"
    ADDRESS_REFUSED = "address_refused"
    DISABLED = "disabled"


Event = RequestStatus | Literal["overdue", "rows_erased", "rows_kept", "memory_returned"]
"""What webhooks are told of a deletion request: a status it came to, that it is overdue, what
became of the rows of its samples, or that its job's version brought back what was forgotten."""

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
