"""What goes into and comes out of the routes of deletion requests."""

from datetime import UTC, datetime
from hashlib import sha256
from typing import Annotated, NamedTuple, Self
from uuid import UUID

from pydantic import AfterValidator, ConfigDict, FailFast, Field, model_validator

from domain import due_dates
from domain.states import Decision, Mode, Objective, RequestStatus, RowsStatus, Verdict
from service.fields import (
    ONE_SUBJECT,
    STORABLE,
    Failure,
    In,
    Instant,
    LocalInstant,
    Name,
    Out,
    SampleId,
    Scores,
)
from service.jobs.accuracy import AccuracyChange

EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)


def _zone(name: str) -> str:
    due_dates.zone(name)  # ValueError: there is none
    return name


class Clock(NamedTuple):
    """The legal month of a request."""

    received_at: datetime
    time_zone: str | None
    due_at: datetime


class DeletionRequestCreate(In):
    """A demand that one model, or every model of a dataset, forget certain samples."""

    model_config = ConfigDict(
        json_schema_extra={
            **ONE_SUBJECT,
            "examples": [
                {
                    "model": "cifar10-cnn",
                    "sample_ids": ["img-00017", "img-00342"],
                    "subject_ref": "ticket 4711",
                    "reason": "GDPR Article 17 request",
                }
            ],
        }
    )

    model: Name | None = None
    """The name of the model that is to forget. Give either this or `dataset`."""

    dataset: Name | None = None
    """The name of a dataset: every model trained on it is to forget. Give either this or
    `model`."""

    # FailFast: a body of wrong ids is one error, not a million.
    sample_ids: Annotated[list[SampleId], Field(min_length=1), FailFast()]
    """The ids of the samples to forget, from the dataset's id column. At most 100,000 unless the
    service is configured otherwise."""

    objective: Objective = Objective.UNTRAIN_SAMPLES
    """What forgetting means: `untrain_samples` for a model that behaves as if it had never been
    trained on the samples, `remove_class` for one that no longer knows their class."""

    exact: bool = False
    """Whether the models must be retrained without the samples. This needs a `recipe` for every
    model asked. Otherwise the models are changed, and retrained only if their policy says so."""

    subject_ref: Annotated[str, Field(pattern=STORABLE, min_length=1, max_length=255)] | None = None
    """Your own reference to the person or the ticket. It is stored with the request and never
    logged."""

    received_at: Annotated[LocalInstant, Field(ge=EARLIEST)] | None = None
    """When the person asked, which is when the legal month begins; the time of this call if left
    out. Give it with the person's own offset from UTC, which decides on which day the month ends.
    Your clock may be up to 5 minutes ahead; then the time of this call is stored."""

    time_zone: Annotated[str, AfterValidator(_zone)] | None = None
    """The time zone of the person: an IANA name such as `Europe/Berlin`, or an offset such as
    `+01:00`. If left out, the offset of `received_at` is taken, and without that, UTC."""

    reason: Annotated[str, Field(pattern=STORABLE, max_length=4096)] | None = None
    """Why the samples are to be forgotten, in your own words. It is stored with the request and
    never logged."""

    @model_validator(mode="after")
    def _one_subject(self) -> Self:
        if (self.model is None) == (self.dataset is None):
            raise ValueError("give either `model` or `dataset`, and not both")
        return self

    @model_validator(mode="after")
    def _received_already(self) -> Self:
        if self.received_at is not None and self.received_at > datetime.now(UTC) + due_dates.AHEAD:
            raise ValueError(
                "`received_at` is more than 5 minutes in the future; correct it, or the clock of "
                "the machine that sends it"
            )
        return self

    def fingerprint(self) -> str:
        """SHA-256 of what it means: equal for bodies that differ in form only."""
        # What was not given is left out, as before there was such a member.
        left_out = {"time_zone"} if self.time_zone is None else None
        return sha256(self.model_dump_json(exclude=left_out).encode()).hexdigest()

    def clock(self) -> Clock:
        """When it counts as received, where, and when it is due."""
        now = datetime.now(UTC)
        given = self.received_at
        received = now if given is None else min(given.astimezone(UTC), now)
        name = self.time_zone or (None if given is None else due_dates.offset_of(given))
        where = due_dates.zone(name) if name else UTC
        return Clock(received, name, due_dates.month_later(received, where))


class DecisionCreate(In):
    """What a person decides about a request that needs review, and on what grounds."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"decision": "accept", "ground": "Residual difference is negligible."}]
        }
    )

    decision: Decision
    """The decision: `accept` to serve the candidate in spite of its verdict, `retry` to try again,
    or `refuse` to leave the samples in the model."""

    ground: Annotated[str, Field(pattern=STORABLE, min_length=1, max_length=4096)]
    """The grounds for the decision. They are stored with the request and never logged."""


class DecisionRead(Out):
    """What was decided, by whom and on what grounds."""

    job_id: UUID
    """The job whose outcome was decided about."""

    decision: Decision
    """What the person decided."""

    ground: str | None
    """The grounds given for the decision; null once the request has been shredded."""

    decided_by: str
    """Who decided; `admin` for whoever holds the key of this installation."""

    decided_at: Instant
    """When the decision was made."""


class InclusionCreate(In):
    """The sample id whose presence in the request is to be shown."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"sample_id": "img-00017"}]})

    sample_id: SampleId
    """The sample id to look for, exactly as the request named it."""


class InclusionRead(Out):
    """A proof that a request named one sample id. It reveals nothing about the others.

    To check it, compute the entry as HMAC-SHA256(blind, id) and the leaf as SHA-256(0x00 followed
    by the entry). The proof leads from the leaf to the commitment as in RFC 9162, section 2.1.3.2.
    """

    commitment: str
    """The request's commitment, in hexadecimal. The event `request.received` in the audit trail
    contains the same value."""

    blind: str
    """The key that blinds this id, in hexadecimal."""

    index: int
    """The position of the leaf, counted from 0."""

    size: int
    """The number of leaves, which is the number of different ids that the request named."""

    proof: list[str]
    """The hashes on the way from the leaf to the root, in base64."""


class TargetResult(Out):
    """The version that was made to forget the samples, and how it was judged."""

    version: int
    """The number of the new version."""

    weights_sha256: str
    """SHA-256 of the new version's safetensors file, in hex."""

    mode: Mode
    """How the version was made: `exact` if it was trained without the samples, `approximate` if it
    was changed to forget them."""

    mode_reason: str | None
    """Why the version was made in this way, in words; null if no reason was recorded."""

    verdict: Verdict | None
    """What the audit found; null if there was no audit."""

    verdict_reason: str | None
    """Which tests decided the verdict, in words; null if there was no audit. The job lists all
    tests."""

    meaning: str | None
    """What the verdict means in plain language, and no more than that; null if there was no
    audit."""

    before: Scores | None
    """Scores of the version that knew the samples; null if they were not measured."""

    after: Scores | None
    """Scores of the new version; null if they were not measured."""

    accuracy: AccuracyChange | None
    """What this did to the accuracy over all classes, and which classes lost all of their training
    samples; null if it was not measured."""


class TargetRead(Out):
    """What the request asks of one model, and how far that is."""

    model: str
    """Name of the model that is to forget."""

    status: RequestStatus
    """How far this model is with the request."""

    job_id: UUID | None
    """The job that serves the request; null while the request waits for one, and if there was
    nothing left to forget."""

    already_forgotten: int
    """How many of the named samples this model had already forgotten."""

    not_trained_on: int
    """How many of the named samples are outside the training split, so that the model never learned
    from them."""

    result: TargetResult | None
    """What came of it; null until there is a version to serve or to review, and if there was
    nothing left to forget."""

    failure: Failure | None
    """Why the job failed; null if it did not."""


class RowsRead(Out):
    """What has become of the samples' rows in the dataset's files."""

    status: RowsStatus
    """Whether rows are still there, and what is being done about them."""

    left: int | None
    """How many rows were still there when a job last counted them; null if none has."""

    job_id: UUID | None
    """The job that said so; null while the first one waits or runs. `GET /v1/jobs` lists the jobs
    of the kind `erase_rows`."""

    at: Instant | None
    """When that job ended; null until then."""

    failure: Failure | None
    """Why that job failed; null if it did not."""

    meaning: str
    """What the status means in plain language, and what to do."""


class DeletionRequestRead(Out):
    """A deletion request, and how far it is."""

    id: UUID
    """The request's id, used in its URL and in the audit trail."""

    status: RequestStatus
    """How far the request is; it sums up the statuses of its targets."""

    objective: Objective
    """What forgetting means for this request."""

    exact: bool
    """Whether the models must be retrained without the samples."""

    dataset: str
    """Name of the dataset that the samples belong to."""

    samples: int
    """How many different sample ids the request named."""

    duplicates: int
    """How many of the ids were repetitions and were dropped."""

    commitment: str | None
    """A hash in hex that binds the request to the ids it named, without revealing any of them.
    `POST /v1/deletion-requests/{id}/inclusion` proves that an id is among them. Null for requests
    from before commitments were introduced."""

    subject_ref: str | None
    """Your own reference to the person or the ticket; null if none was given, and once the request
    has been shredded."""

    reason: str | None
    """Why the samples are to be forgotten, in your own words; null if no reason was given, and once
    the request has been shredded."""

    received_at: Instant
    """When the person asked, which is when the legal month begins."""

    time_zone: str | None = None
    """The time zone that decides on which day the legal month ends: an IANA name, or an offset from
    UTC. Null for UTC, if nothing else was given."""

    due_at: Instant
    """When the request must be answered: one calendar month after it was received, in `time_zone`
    (GDPR Article 12(3)), at the same time of day. A month without that date ends on its last
    day."""

    created_at: Instant
    """When this service accepted the request."""

    finished_at: Instant | None
    """When the request came to its end; null until then."""

    overdue_at: Instant | None
    """When the service noticed that the due date had passed without an answer; null if it has
    not."""

    shredded_at: Instant | None
    """When everything that links the request to a person was destroyed: its key, `subject_ref`,
    `reason` and the grounds of decisions. Null until then."""

    rows: RowsRead | None
    """What has become of the samples' rows in the dataset's files. Null while the request is open,
    and if the dataset was registered without `erase`, so that its files are never changed."""

    targets: list[TargetRead]
    """What the request asks of each model that is to forget."""

    decisions: list[DecisionRead]
    """What people decided about the request, oldest first."""
