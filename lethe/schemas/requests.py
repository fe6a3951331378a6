"""Deletion requests, estimates of them, and what proves them."""

import json
from base64 import b64decode
from datetime import datetime
from typing import Any, Literal, Self
from uuid import UUID

from pydantic import Field, PrivateAttr

from lethe.calls import Answer, Call, Headed
from lethe.schemas.common import (
    OPEN_JOBS,
    Failure,
    Followed,
    JobStatus,
    Mode,
    Objective,
    Result,
    Scores,
    Verdict,
    Word,
)
from lethe.schemas.jobs import AccuracyChange, Test


class RequestStatus(Word):
    """Where a deletion request stands."""

    PENDING = "pending"
    SCHEDULED = "scheduled"
    RUNNING = "running"
    COMPLETED = "completed"
    NEEDS_REVIEW = "needs_review"
    FAILED = "failed"
    CANCELLED = "cancelled"
    REFUSED = "refused"


MOVING_REQUESTS = frozenset({RequestStatus.PENDING, RequestStatus.SCHEDULED, RequestStatus.RUNNING})


class DecisionKind(Word):
    """What a person may decide when every attempt got the verdict `fail`."""

    ACCEPT = "accept"
    RETRY = "retry"
    REFUSE = "refuse"


class RequestOrder(Word):
    """The newest first, or what must be answered first."""

    NEWEST = "newest"
    DUE = "due"


class Decision(Result):
    """What was decided, by whom and on what ground."""

    job_id: UUID
    decision: DecisionKind
    ground: str | None
    decided_by: str
    decided_at: datetime


class TargetResult(Result):
    """The version that was made to forget the samples, and how it was judged."""

    version: int
    weights_sha256: str
    mode: Mode
    mode_reason: str | None
    verdict: Verdict | None
    """None where no audit was made."""

    verdict_reason: str | None
    meaning: str | None
    """What the verdict says, and no more."""

    before: Scores | None
    after: Scores | None
    accuracy: AccuracyChange | None


class Target(Result):
    """What a request asks of one model, and how far that is."""

    model: str
    status: RequestStatus
    job_id: UUID | None
    planned_for: datetime | None = None
    """Until when at the latest it is held back for others; None once it is in a job."""

    accepted_job_id: UUID | None = None
    """The job whose version was accepted when it had been overtaken, and is made anew."""

    already_forgotten: int
    not_trained_on: int
    former: int = 0
    """Samples it knows that left the dataset: while there are any, the request waits for a version
    that was trained on a later state."""

    result: TargetResult | None
    failure: Failure | None


class RowsStatus(Word):
    """What has become of the rows of forgotten samples in the files of a dataset that erases."""

    WAITING = "waiting"
    FAILED = "failed"
    HELD = "held"
    GONE = "gone"


class Rows(Result):
    """What has become of the samples' rows in the dataset's files."""

    status: RowsStatus
    left: int | None
    """How many were still there when a job last counted them."""

    job_id: UUID | None
    at: datetime | None
    failure: Failure | None
    meaning: str
    """What the status means, and what to do."""


class OfUnknown(Word):
    """What becomes of a request that names subjects of whom the dataset has no sample."""

    REFUSE = "refuse"
    ANSWER = "answer"


class Resolved(Result):
    """What was found by the subjects that a request named."""

    samples: int
    datasets: int
    models: int
    unknown_subjects: int
    meaning: str | None
    """What it means that some were not found; None if all were."""


class DeletionRequest(Followed, Headed):
    """A deletion request, and how far it is."""

    id: UUID
    status: RequestStatus
    objective: Objective
    exact: bool
    urgent: bool = False
    dataset: str
    samples: int
    """How many different samples were named, by their ids or by subjects."""

    subjects: int = 0
    resolved: Resolved | None = None
    """None where no subject was named."""

    duplicates: int
    commitment: str | None
    """Binds the request to what it named, without showing any of it."""

    subject_ref: str | None
    reason: str | None
    received_at: datetime
    time_zone: str | None = None
    """Decides on which day the month ends; None for UTC, if nothing else was given."""

    due_at: datetime
    """One month after receipt (GDPR Article 12(3))."""

    created_at: datetime
    planned_for: datetime | None = None
    """Until when at the latest it is held back, so that others can share its job; None once it is
    in one."""

    finished_at: datetime | None
    overdue_at: datetime | None
    shredded_at: datetime | None
    rows: Rows | None
    """None where the dataset does not erase, and while the request is open."""

    targets: list[Target]
    """One for each model that is to forget."""

    decisions: list[Decision]

    _idempotency_key: str | None = PrivateAttr(default=None)
    _replayed: bool = PrivateAttr(default=False)

    @property
    def idempotency_key(self) -> str | None:
        """What it was submitted with, where this comes from `forget`."""
        return self._idempotency_key

    @property
    def was_submitted_before(self) -> bool:
        """Whether `forget` found that the service had this request already, by its key."""
        return self._replayed

    def note(self, call: Call[Any], answer: Answer) -> None:
        self._idempotency_key = call.idempotency_key
        self._replayed = answer.headers.get("idempotent-replayed") == "true"

    def again(self) -> Call[Self]:
        return Call(
            method="GET",
            path="/v1/deletion-requests/{request_id}",
            places={"request_id": self.id},
            reads=type(self),
        )

    @property
    def is_settled(self) -> bool:
        return self.status not in MOVING_REQUESTS

    def job_ids(self) -> list[UUID]:
        return [target.job_id for target in self.targets if target.job_id is not None]


class NamedAs(Word):
    """What a request named."""

    SAMPLE = "sample"
    SUBJECT = "subject"
    UNKNOWN_SUBJECT = "unknown_subject"


class Inclusion(Result):
    """What shows that a request named one sample or one subject, and says nothing of the others."""

    named_as: NamedAs = NamedAs.SAMPLE
    commitment: str
    blind: str
    index: int
    size: int
    proof: list[str]


class Measure(Word):
    """Against reference models that did not learn from a sample, or against hold-out samples."""

    CONFIDENCE_GAP = "confidence_gap"
    LOSS_GAP = "loss_gap"


class Memorisation(Result):
    """How much surer of the samples a model is for having learned from them."""

    measure: Measure
    value: float
    """About 0 for samples that leave no trace."""


class LostClass(Result):
    """A class that would be left without training samples."""

    label: int
    training_samples: int
    accuracy: float | None
    """On hold-out samples of the class, at present."""

    holdout_samples: int


class EstimateResult(Result):
    """What a deletion request would meet at one model."""

    version: int
    samples: int
    forgotten_share: float | None = None
    mode: Mode | None = None
    mode_reason: str | None = None
    measured: int | None = None
    audit_has_power: bool | None = None
    """Whether the tests can tell the samples from hold-out samples. If not, the verdict can be no
    better than `no_power`."""

    tests: list[Test] = Field(default=[])
    remarks: list[str] = Field(default=[])
    lost_classes: list[LostClass] = Field(default=[])
    """Classes that would lose all of their training samples."""

    memorisation: Memorisation | None = None
    predicted_seconds: float | None = None
    prediction_basis: str | None = None


class EstimateTarget(Result):
    """What is asked of one model, and the answer."""

    model: str
    status: JobStatus
    job_id: UUID
    already_forgotten: int
    not_trained_on: int
    former: int = 0
    """Samples it knows that left the dataset: a request for them would wait for a version that was
    trained on a later state."""

    result: EstimateResult | None
    failure: Failure | None


class Estimate(Followed):
    """What a deletion request would meet; nothing is forgotten."""

    id: UUID
    status: JobStatus
    objective: Objective
    exact: bool
    dataset: str
    samples: int
    subjects: int = 0
    resolved: Resolved | None = None
    duplicates: int
    created_at: datetime
    targets: list[EstimateTarget]

    def again(self) -> Call[Self]:
        return Call(
            method="GET",
            path="/v1/deletion-requests/estimates/{estimate_id}",
            places={"estimate_id": self.id},
            reads=type(self),
        )

    @property
    def is_settled(self) -> bool:
        return self.status not in OPEN_JOBS

    def job_ids(self) -> list[UUID]:
        return [target.job_id for target in self.targets]


class Signature(Result):
    """Who signed, and the signature."""

    keyid: str
    """SHA-256 of the raw public key, in hex."""

    sig: str
    """Ed25519, in base64."""


class Certificate(Result):
    """An in-toto statement in a DSSE envelope. `lethe verify` checks signatures; this does not."""

    payload: str
    """The statement, in base64."""

    payloadType: Literal["application/vnd.in-toto+json"]  # noqa: N815 (as DSSE has it)
    signatures: list[Signature]

    @property
    def statement(self) -> dict[str, Any]:
        """What is certified, without a look at the signatures."""
        statement: dict[str, Any] = json.loads(b64decode(self.payload))
        return statement
