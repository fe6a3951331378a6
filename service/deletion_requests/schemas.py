"""What goes into and comes out of the routes of deletion requests, but for the demand itself."""

from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Self
from uuid import UUID

from pydantic import ConfigDict, Field, model_validator

from domain.states import Decision, Mode, Objective, RequestStatus, RowsStatus, Verdict
from service.fields import (
    STORABLE,
    Failure,
    In,
    Instant,
    Out,
    SampleId,
    Scores,
    Subject,
)
from service.jobs.accuracy import AccuracyChange


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
    """The sample id or the subject whose presence in the request is to be shown."""

    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [
                {
                    "required": [one],
                    "properties": {
                        one: {"not": {"type": "null"}, "description": "What is to be looked for."},
                        other: {
                            "type": "null",
                            "description": "The other one is left out, or null.",
                        },
                    },
                }
                for one, other in (("sample_id", "subject"), ("subject", "sample_id"))
            ],
            "examples": [{"sample_id": "img-00017"}, {"subject": "customer-4711"}],
        }
    )

    sample_id: SampleId | None = None
    """The sample id to look for, exactly as the dataset has it. Give either this or `subject`."""

    subject: Subject | None = None
    """The subject to look for. Give either this or `sample_id`."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.sample_id is None) == (self.subject is None):
            raise ValueError("give either `sample_id` or `subject`, and not both")
        return self


class NamedAs(StrEnum):
    """What a request has named.

    - `sample`: a sample, by its id or by its subject.
    - `subject`: a subject of whom the dataset had samples.
    - `unknown_subject`: a subject of whom the dataset had no sample.
    """

    SAMPLE = "sample"
    SUBJECT = "subject"
    UNKNOWN_SUBJECT = "unknown_subject"


class InclusionRead(Out):
    """A proof that a request named one sample or one subject. It reveals nothing about the others.

    To check it, compute the entry as HMAC-SHA256(blind, text) and the leaf as SHA-256(0x00 followed
    by the entry). The text is the id of a sample; for a subject it is a NUL, the word `subject` or
    the words `unknown subject`, a NUL, and the subject. The proof leads from the leaf to the
    commitment as in RFC 9162, section 2.1.3.2.
    """

    named_as: NamedAs = NamedAs.SAMPLE
    """What was named, and so which text the leaf is made of."""

    commitment: str
    """The request's commitment, in hexadecimal. The event `request.received` in the audit trail
    contains the same value."""

    blind: str
    """The key that blinds this leaf, in hexadecimal."""

    index: int
    """The position of the leaf, counted from 0."""

    size: int
    """The number of leaves: one for each different sample and one for each different subject."""

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

    planned_for: Instant | None = None
    """Until when at the latest the request is held back so that others can join it; a job of this
    model that is under way then ends first. A request that comes later may make it sooner, and so
    do enough samples to fill a job. The answer to a submission says what holds for that request
    alone. Null once it is in a job, and while any of its samples are `former`."""

    accepted_job_id: UUID | None = None
    """The job whose version a person accepted after other requests had overtaken it: until this
    target is completed, a new job makes that version anew. Null otherwise."""

    already_forgotten: int
    """How many of the named samples this model had already forgotten."""

    not_trained_on: int
    """How many of the named samples are outside the training split, so that the model never learned
    from them."""

    former: int = 0
    """How many of the named samples the model knows though they left the dataset, or have another
    content there, since it was trained. No job can make it forget these: while there are any, the
    request waits for a version that was trained on a later state of the dataset
    (`POST /v1/models/{name}/versions`), and its due date keeps running."""

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


class ResolvedRead(Out):
    """What was found by the subjects that a request named, when it was received."""

    samples: int
    """How many different samples were found."""

    datasets: int
    """How many datasets have them: 1, or 0 if no sample was found."""

    models: int
    """How many models were asked to forget them."""

    unknown_subjects: int
    """How many subjects had no sample in the dataset."""

    meaning: str | None
    """What it means in plain language that some subjects were not found; null if all were."""


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

    urgent: bool = False
    """Whether it was to go into a job at once."""

    dataset: str
    """Name of the dataset that the samples belong to."""

    samples: int
    """How many different samples the request named, by their ids or by subjects."""

    subjects: int = 0
    """How many different subjects the request named."""

    resolved: ResolvedRead | None = None
    """What was found by subjects; null if the request named none."""

    duplicates: int
    """How many of the ids and subjects were repetitions and were dropped."""

    commitment: str | None
    """A hash in hex that binds the request to what it named, without revealing any of it.
    `POST /v1/deletion-requests/{id}/inclusion` proves that an id or a subject is among that. Null
    for requests from before commitments were introduced."""

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

    planned_for: Instant | None = None
    """Until when at the latest the request is held back so that others can share its job: the last
    `planned_for` among its targets, or null if none has one."""

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


def planned(targets: Iterable[TargetRead]) -> datetime | None:
    """When the last of them that waits for others will do so no longer."""
    return max((each.planned_for for each in targets if each.planned_for), default=None)


def held_until(request: DeletionRequestRead) -> datetime | None:
    """Until when nothing is done for a request; None if something may be at any moment."""
    if request.status is not RequestStatus.PENDING:
        return None
    return min((each.planned_for for each in request.targets if each.planned_for), default=None)
