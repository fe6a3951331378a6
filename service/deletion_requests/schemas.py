"""What goes into and comes out of the routes of deletion requests."""

from datetime import UTC, datetime
from hashlib import sha256
from typing import Annotated, Self
from uuid import UUID

from pydantic import ConfigDict, FailFast, Field, model_validator

from domain.states import Decision, Mode, Objective, RequestStatus, Verdict
from service.fields import STORABLE, Failure, In, Instant, Name, Out, SampleId, Scores

EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)


class DeletionRequestCreate(In):
    """A demand that samples be forgotten, by one model or by every model of a dataset."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model": "cifar10-cnn",
                    "sample_ids": ["img-00017", "img-00342"],
                    "subject_ref": "ticket 4711",
                    "reason": "GDPR Article 17 request",
                }
            ]
        }
    )

    model: Name | None = None
    """The model that is to forget; give this or `dataset`."""

    dataset: Name | None = None
    """Every model trained on this dataset is to forget."""

    # FailFast: a body of wrong ids is one error, not a million.
    sample_ids: Annotated[list[SampleId], Field(min_length=1), FailFast()]
    """Ids from the dataset's id column; at most 100,000 unless configured otherwise."""

    objective: Objective = Objective.UNTRAIN_SAMPLES
    """`untrain_samples`: behave as if never trained on these. `remove_class`: lose the concept."""

    exact: bool = False
    """Only a training without the samples will do; every model asked needs a `recipe`. Without it
    the models are changed, and retrained where their policy says so."""

    subject_ref: Annotated[str, Field(pattern=STORABLE, min_length=1, max_length=255)] | None = None
    """Your reference to the person or ticket. Stored with the request, never logged."""

    received_at: Annotated[Instant, Field(ge=EARLIEST)] | None = None
    """When the person asked; now if not given. The legal month starts here."""

    reason: Annotated[str, Field(pattern=STORABLE, max_length=4096)] | None = None

    @model_validator(mode="after")
    def _one_subject(self) -> Self:
        if (self.model is None) == (self.dataset is None):
            raise ValueError("give exactly one of model and dataset")
        return self

    @model_validator(mode="after")
    def _received_already(self) -> Self:
        if self.received_at is not None and self.received_at > datetime.now(UTC):
            raise ValueError("received_at lies in the future")
        return self

    def fingerprint(self) -> str:
        """SHA-256 of what it means: equal for bodies that differ in form only."""
        return sha256(self.model_dump_json().encode()).hexdigest()


class DecisionCreate(In):
    """What a person decides about a request that needs review, and on what ground."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"decision": "accept", "ground": "Residual difference is negligible."}]
        }
    )

    decision: Decision
    """`accept`: serve the candidate in spite of its verdict. `retry`: try anew. `refuse`: the
    samples stay."""

    ground: Annotated[str, Field(pattern=STORABLE, min_length=1, max_length=4096)]
    """Why. Stored with the request, never logged."""


class DecisionRead(Out):
    """What was decided, by whom and on what ground."""

    job_id: UUID
    """The job whose outcome it was about."""

    decision: Decision
    ground: str | None
    """Null once the request is shredded."""

    decided_by: str
    decided_at: Instant


class InclusionCreate(In):
    """Which id is asked about."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"sample_id": "img-00017"}]})

    sample_id: SampleId


class InclusionRead(Out):
    """What shows that a request named one id. It says nothing of the others.

    With HMAC-SHA256: the entry is HMAC(blind, id), the leaf SHA-256(0x00 and the entry), and the
    proof leads from it to the commitment as in RFC 9162, 2.1.3.2.
    """

    commitment: str
    """In hexadecimal; the event `request.received` of the audit trail has it, too."""

    blind: str
    """In hexadecimal."""

    index: int
    """Of the leaf, from 0."""

    size: int
    """How many leaves there are: as many as different ids were named."""

    proof: list[str]
    """Hashes in base64, from the leaf to the root."""


class TargetResult(Out):
    """What came of it: the version made to forget the samples, and how it was judged."""

    version: int
    weights_sha256: str
    mode: Mode
    """`exact`: trained without the samples; `approximate`: changed to forget them."""

    mode_reason: str | None
    """Why in this way."""

    verdict: Verdict | None
    """Null where no audit was made."""

    verdict_reason: str | None
    """Which tests decided, in words; the job has them all."""

    meaning: str | None
    """What the verdict says, and no more."""

    before: Scores | None
    """Measured with the version that knew the samples."""

    after: Scores | None
    """Measured with the new version."""


class TargetRead(Out):
    """What the request asks of one model, and how far that is."""

    model: str
    status: RequestStatus
    job_id: UUID | None
    """The job that serves it; null while it waits, and where nothing was left to forget."""

    already_forgotten: int
    """Named samples this model had forgotten before the request came in."""

    not_trained_on: int
    """Named samples outside the training split: the model never learned from them."""

    result: TargetResult | None
    """Null until there is one to serve or to review, and where nothing was left to forget."""

    failure: Failure | None


class DeletionRequestRead(Out):
    """A deletion request, and how far it is."""

    id: UUID
    status: RequestStatus
    objective: Objective
    exact: bool
    dataset: str
    samples: int
    """How many different ids were named."""

    duplicates: int
    """How many named ids were repetitions."""

    commitment: str | None
    """Binds the request to the ids it named, without showing one; null for requests from before
    there were commitments. `POST …/inclusion` shows that one id is among them."""

    subject_ref: str | None
    reason: str | None
    received_at: Instant
    due_at: Instant
    """One month after receipt (GDPR Article 12(3))."""

    created_at: Instant
    finished_at: Instant | None
    overdue_at: Instant | None
    """When the due date was seen to have passed before the request was answered."""

    shredded_at: Instant | None
    """When what links it to a person was destroyed: its key, `subject_ref`, `reason` and the
    grounds of decisions."""

    targets: list[TargetRead]
    """One for each model that is to forget."""

    decisions: list[DecisionRead]
    """What people decided about it, oldest first."""
