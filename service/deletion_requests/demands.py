"""What a demand says that samples be forgotten: a deletion request, or an estimate of one."""

from datetime import UTC, datetime
from enum import StrEnum
from hashlib import sha256
from typing import Annotated, Any, NamedTuple, Self

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from domain import due_dates
from domain.states import Objective
from service.fields import ONE_SUBJECT, STORABLE, In, LocalInstant, Name, SampleId, Subject

EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)


def _zone(name: str) -> str:
    due_dates.zone(name)  # ValueError: there is none
    return name


class Clock(NamedTuple):
    """The legal month of a request."""

    received_at: datetime
    time_zone: str | None
    due_at: datetime


class OfUnknown(StrEnum):
    """What becomes of a request that names subjects of whom the dataset has no sample.

    - `refuse`: the request is refused, and nothing is stored.
    - `answer`: the request is accepted, and it is certified that nothing of them was found.
    """

    REFUSE = "refuse"
    ANSWER = "answer"


NAMED: dict[str, Any] = {
    "anyOf": [
        {
            "required": [one],
            "properties": {
                one: {"type": "array", "description": f"The {one} that are to be forgotten."}
            },
        }
        for one in ("sample_ids", "subjects")
    ]
}
"""Says in a JSON Schema that samples are named by ids, by subjects, or by both."""


class DeletionRequestCreate(In):
    """A demand that one model, or every model of a dataset, forget certain samples."""

    model_config = ConfigDict(
        json_schema_extra={
            **ONE_SUBJECT,
            **NAMED,
            "examples": [
                {
                    "model": "cifar10-cnn",
                    "sample_ids": ["img-00017", "img-00342"],
                    "subject_ref": "ticket 4711",
                    "reason": "GDPR Article 17 request",
                },
                {"dataset": "gait", "subjects": ["customer-4711"], "unknown_subjects": "answer"},
            ],
        }
    )

    model: Name | None = None
    """The name of the model that is to forget. Give either this or `dataset`."""

    dataset: Name | None = None
    """The name of a dataset: every model trained on it is to forget. Give either this or
    `model`."""

    # They fail fast: a body of wrong ids is one error, not a million.
    sample_ids: Annotated[list[SampleId], Field(min_length=1, fail_fast=True)] | None = None
    """The ids of the samples to forget, from the dataset's id column. At most 100,000 unless the
    service is configured otherwise. Give these, `subjects`, or both."""

    subjects: Annotated[list[Subject], Field(min_length=1, fail_fast=True)] | None = None
    """The people, accounts or households whose samples are to be forgotten, as the dataset's
    `group` column names them: text or integers. They are looked up now, and only counts of them are
    kept. Not more than ids, and their samples count as if they were named by id."""

    unknown_subjects: OfUnknown = OfUnknown.REFUSE
    """What is to be done if the dataset has no sample of a subject: `refuse` the request, or
    `answer` it, which certifies that nothing was found. Check the spelling before you choose
    `answer`."""

    objective: Objective = Objective.UNTRAIN_SAMPLES
    """What forgetting means: `untrain_samples` for a model that behaves as if it had never been
    trained on the samples, `remove_class` for one that no longer knows their class."""

    exact: bool = False
    """Whether the models must be retrained without the samples. This needs a `recipe` for every
    model asked. Otherwise the models are changed, and retrained only if their policy says so."""

    urgent: bool = False
    """Whether the request goes into a job at once, and takes along what waits for the same models.
    Otherwise it may wait for others, as the `batch` of a model's policy says; `planned_for` in the
    answer says until when. An `exact` request waits likewise: one retraining serves all."""

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
    def _names_something(self) -> Self:
        if self.sample_ids is None and self.subjects is None:
            raise ValueError("name what is to be forgotten: `sample_ids`, `subjects`, or both")
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
        left_out = {"time_zone"} if self.time_zone is None else set()
        if not self.urgent:
            left_out |= {"urgent"}
        if self.subjects is None:
            left_out |= {"subjects", "unknown_subjects"}
        return sha256(self.model_dump_json(exclude=left_out).encode()).hexdigest()

    def clock(self) -> Clock:
        """When it counts as received, where, and when it is due."""
        now = datetime.now(UTC)
        given = self.received_at
        received = now if given is None else min(given.astimezone(UTC), now)
        name = self.time_zone or (None if given is None else due_dates.offset_of(given))
        where = due_dates.zone(name) if name else UTC
        return Clock(received, name, due_dates.month_later(received, where))
