"""Every event of the audit trail: its name, what it is about, and what is told with it.

An event is written as `JobStarted(attempt=1)` and recorded by `domain.trail`; for queries its name
is `JobStarted.event`. Entries are hashed and signed for good: a name or a field that was ever used
keeps its meaning, and a field that is added later has a default.

Ids of rows, counts and digests stand here, never a sample id or free text.
"""

from typing import Any
from uuid import UUID

from domain import version_events, webhook_events
from domain.event import EVENTS, Event, became, described

__all__ = ["EVENTS", "Event", "became", "described", "version_events", "webhook_events"]


class RequestReceived(Event, event="request.received", about="request"):
    """A deletion request was stored; what it names and says is told as digests under its key."""

    objective: str  # all this is written in SQL, by `service.deletion_requests.submission`
    exact: bool
    samples: int
    duplicates: int
    commitment: str
    subject_ref_hmac: str | None
    reason_hmac: str | None
    received_at: str
    due_at: str
    models: list[UUID]
    urgent: bool = False
    subjects: int | None = None
    unknown_subjects: int | None = None
    subject_samples: int | None = None
    dataset: str | None = None
    indexed_at: str | None = None
    """Where the subjects were looked up, and when that had been indexed: if it names any."""


class RequestPending(Event, event="request.pending", about="request"):
    """The request waits for a job again."""


class RequestScheduled(Event, event="request.scheduled", about="request"):
    """The request is in a job that waits for a worker."""


class RequestRunning(Event, event="request.running", about="request"):
    """A worker is at the request."""


class RequestCompleted(Event, event="request.completed", about="request"):
    """Every model has forgotten what the request names."""


class RequestNeedsReview(Event, event="request.needs_review", about="request"):
    """No attempt got a better verdict than `fail`; a person has to decide."""


class RequestFailed(Event, event="request.failed", about="request"):
    """A job of the request failed; an operator can have it tried again."""


class RequestCancelled(Event, event="request.cancelled", about="request"):
    """The request was taken back before it was answered."""


class RequestRefused(Event, event="request.refused", about="request"):
    """A person refused the request."""


class RequestCancelAsked(Event, event="request.cancel_asked", about="request"):
    """Somebody asked to take the request back."""


class RequestOverdue(Event, event="request.overdue", about="request"):
    """The due date passed before the request was answered."""


class RequestShredded(Event, event="request.shredded", about="request"):
    """What linked the request to a person was destroyed, its key included."""


class RequestRowsErased(Event, event="request.rows_erased", about="request"):
    """A job erased the last rows of the request's samples from the dataset's files."""

    job: UUID


class RequestRowsKept(Event, event="request.rows_kept", about="request"):
    """A job ended, and rows of the request's samples are still in the dataset's files."""

    job: UUID
    why: str
    """`failed` if the job failed, `held` if another model has yet to forget the samples."""

    left: int | None = None


class RequestDecided(Event, event="request.decided", about="request"):
    """A person decided about a version with the verdict `fail`; one `overtaken` is made anew."""

    decision: str
    job: UUID
    """The job that made the version."""

    by: str
    ground_hmac: str | None
    overtaken: bool | None = None


class CertificateIssued(Event, event="certificate.issued", about="request"):
    """A certificate of the request was signed."""

    number: int
    sha256: str
    """Of the signed statement."""


class JobQueued(Event, event="job.queued", about="job"):
    """A job was created for a model or for a dataset, or to make an accepted version anew."""

    model: UUID | None = None
    dataset: UUID | None = None
    accepted_job: UUID | None = None
    """The job whose version was accepted, but had been overtaken."""


class JobStarted(Event, event="job.started", about="job"):
    """A worker claimed the job; every attempt has a number of its own."""

    attempt: int


class JobResumed(Event, event="job.resumed", about="job"):
    """An attempt goes on from a checkpoint that an earlier one left."""

    attempt: int
    round: int
    cycle: int


class JobReleased(Event, event="job.released", about="job"):
    """An attempt was stopped or lost, and the job waits for a worker again."""

    attempt: int
    why: str
    kind: str | None = None
    """Of failure, where the attempt counts as lost."""


class JobCompleted(Event, event="job.completed", about="job"):
    """The job did what it was to do. An acceptance of another version `stands` or is `exceeded`."""

    attempt: int
    verdict: str | None = None
    acceptance: str | None = None
    """Of a version with the verdict `fail` in the place of an accepted one: `stands` if it covers
    it, `exceeded` if a person has to decide again."""


class JobFailed(Event, event="job.failed", about="job"):
    """The job ended without a result."""

    attempt: int
    kind: str


class JobCancelled(Event, event="job.cancelled", about="job"):
    """The job was ended because a request was taken back."""

    attempt: int


class JobRetried(Event, event="job.retried", about="job"):
    """An operator had a failed job tried again."""

    attempt: int
    kind: str
    """Of the failure before."""


class CheckpointsDeleted(Event, event="checkpoints.deleted", about="job"):
    """The checkpoints of an ended job were deleted, and the folder was listed to see it."""

    files: int
    left: int


class DatasetRegistered(Event, event="dataset.registered", about="dataset"):
    """A dataset was named, and waits to be indexed."""

    name: str


class DatasetIndexed(Event, event="dataset.indexed", about="dataset"):
    """The dataset was read, and can be used."""

    rows: int
    samples: dict[str, int]
    """By split."""

    bad_rows: int
    suppressed: int
    """Samples with the ids of samples that were forgotten in other datasets."""


class DatasetFailed(Event, event="dataset.failed", about="dataset"):
    """The dataset could not be indexed."""

    job: UUID


class DatasetErased(Event, event="dataset.erased", about="dataset"):
    """Rows of forgotten samples were deleted from the dataset's files."""

    samples: int
    files: list[dict[str, Any]]
    """Of each rewritten file the digests and numbers of rows, before and after."""


class SubjectsLookedUp(Event, event="subjects.looked_up", about="dataset"):
    """Somebody asked what is known of subjects, in this dataset and perhaps in others."""

    lookup: UUID
    subjects: int
    known: int
    samples: int
    by: str


class SuppressionLifted(Event, event="suppression.lifted", about="dataset"):
    """Samples that models of the dataset have forgotten may be trained on again."""

    lift: UUID
    samples: int
    digests_sha256: str
    """Of the samples' digests under the key of the dataset, sorted and joined."""

    reason_hmac: str
    authorised_by_hmac: str
    by: str


class ModelRegistered(Event, event="model.registered", about="model"):
    """A model was named, and waits to be examined."""

    name: str
    dataset: UUID
    suppressed_samples: int
    accept_accuracy: bool | None = None


class ModelChecked(Event, event="model.checked", about="model"):
    """The model was examined, and can be used."""

    job: UUID
    train_samples: int | None = None
    train_right: int | None = None
    holdout_samples: int | None = None
    holdout_right: int | None = None
    accepted: list[str] | None = None
    """What was objected to its accuracy, where that was accepted beforehand."""


class ModelFailed(Event, event="model.failed", about="model"):
    """The model could not be registered."""

    job: UUID


class ReferencesCompleted(Event, event="references.completed", about="model"):
    """Reference models were trained, asked and discarded."""

    job: UUID
    models: int
    recipe: str
    samples: int
    reference_models_kept: int
    groups: int | None = None  # that the training samples form
    scores_kept: bool | None = None  # of each model, not only mean and deviation


class MemoryReturned(Event, event="model.memory_returned", about="model"):
    """What the model has forgotten can be told apart in a new version, and could not before."""

    version: int
    job: UUID
    requests: int
    samples: int
    remeasured: int
    """How many of the samples were measured again in this version."""


class VersionCreated(Event, event="version.created", about="version"):
    """A version of a model was made, by registration or by a job that forgets."""

    model: UUID
    number: int
    job: UUID
    weights_sha256: str
    statistics_sha256: str
    reservoir_sha256: str
    features_sha256: str | None = None
    parent_sha256: str | None = None
    """Of the weights it was made from. This and the rest are left out of a registered version."""

    samples: int | None = None
    status: str | None = None
    mode: str | None = None
    measured: int | None = None
    right_before: int | None = None
    right_after: int | None = None
    """Of `measured` samples of all classes, which were never trained on: numbers are whole here."""

    lost_classes: list[int] | None = None
    """Labels of which the job left no training sample."""

    backbone_sha256: list[str] | None = None  # on which nothing but its head was fitted
    accept_accuracy: bool | None = None
    replaces_sha256: str | None = None  # of the champion before a version with the mode `declared`


class VersionSuperseded(Event, event="version.superseded", about="version"):
    """The version is never served again: it holds what was to be forgotten."""

    number: int


class VersionPromoted(Event, event="version.promoted", about="version"):
    """A person accepted the version, or the one in whose place it was made, and it is served."""

    number: int
    weights_sha256: str
    accepted_job: UUID | None = None


class WeightsFetched(Event, event="weights.fetched", about="version"):
    """A download of the version's weights began: a copy may outlive the version."""

    model: UUID
    number: int


class PreviewFetched(Event, event="preview.fetched", about="version"):
    """Somebody looked at the samples that the version's preview shows."""

    model: UUID
    number: int


class VersionPurged(Event, event="version.purged", about="version"):
    """The files of a superseded version were deleted, and the store was listed to see it."""

    model: UUID
    number: int
    job: UUID
    weights_sha256: str
    statistics_sha256: str
    reservoir_sha256: str
    deleted: int
    kept: list[str]
    """Which of them another version names too."""

    left: int
    features_sha256: str | None = None


class ReservoirReplaced(Event, event="reservoir.replaced", about="version"):
    """Samples that are not for training left what is kept for the version's jobs."""

    job: UUID
    reservoir_sha256: str
    replaced_sha256: str
    samples: int


class SigningKeyIntroduced(Event, event="signing_key.introduced", about="signing key"):
    """A key signs the log for the first time; one that is known vouches for it, and it for that."""

    name: str
    public_key: str
    replaces: str | None
    endorsement: str | None
    acknowledgement: str | None


class BackupReplayed(Event, event="backup.replayed", about="the command's run"):
    """A restored backup was compared with the suppression ledger, and what came back removed."""

    requests: int
    samples: int
    files: int
    champions: int
    anchored: int | None
    """Events in the newest anchored checkpoint, if the log was rolled back behind it."""

    agreed: int | None
    """Up to which event they agree."""
