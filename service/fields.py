"""What several schemas share: the kinds of values that go in and come out.

Every field of a schema has a docstring: it is the field's description in the OpenAPI document.
"""

from datetime import UTC, datetime
from typing import Annotated, Any
from urllib.parse import urlsplit
from uuid import UUID

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    StringConstraints,
    WithJsonSchema,
)

from domain import classes, subjects


class In(BaseModel):
    """What comes in: unknown members are refused, so that a misspelt option is not ignored."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )


class Out(BaseModel):
    """What goes out."""

    model_config = ConfigDict(from_attributes=True, use_attribute_docstrings=True)


def _in_utc(instant: datetime) -> datetime:
    try:
        return instant.astimezone(UTC)
    except OverflowError:
        raise ValueError("must be a date between the years 1 and 9999, in UTC") from None


def _is_in_utc(instant: datetime) -> datetime:
    _in_utc(instant)
    return instant


def _splits(uri: str) -> str:
    urlsplit(uri)  # ValueError: not a URI, such as `http://[`
    return uri


def _distinct(names: list[str]) -> list[str]:
    classes.check(names, "`classes`")
    return names


def _canonical(subject: object) -> str:
    if isinstance(subject, bool) or not isinstance(subject, str | int):
        raise ValueError("give text or an integer")
    return subjects.canonical(str(subject))


ONE_SUBJECT: dict[str, Any] = {
    "oneOf": [
        {
            "required": [one],
            "properties": {
                one: {"type": "string", "description": "The name of the one that is asked."},
                other: {"type": "null", "description": "The other one is left out, or null."},
            },
        }
        for one, other in (("model", "dataset"), ("dataset", "model"))
    ]
}
"""Says in a JSON Schema that either a model or a dataset is named."""


STORABLE = r"^[^\x00]*$"
"""Postgres stores every character but NUL."""

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
Label = Annotated[str, StringConstraints(pattern=STORABLE, min_length=1, max_length=255)]
ClassNames = Annotated[
    list[Label], Field(min_length=1, max_length=65_536), AfterValidator(_distinct)
]
SampleId = Annotated[
    str, StringConstraints(pattern=STORABLE, min_length=1, max_length=512, strict=True)
]
Subject = Annotated[
    str,
    BeforeValidator(_canonical),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "minLength": 1, "maxLength": subjects.LONGEST},
                {"type": "integer"},
            ]
        }
    ),
]
"""Whose samples are meant, as the dataset's group column names it; in its canonical form."""

Uri = Annotated[
    str,
    StringConstraints(pattern=STORABLE, min_length=1, max_length=4096),
    AfterValidator(_splits),
]
Instant = Annotated[AwareDatetime, AfterValidator(_in_utc)]
LocalInstant = Annotated[
    AwareDatetime, AfterValidator(_is_in_utc), PlainSerializer(_in_utc, return_type=datetime)
]
"""An instant that keeps the offset it came with; written in UTC, as all are."""


class Scores(Out):
    """How forget samples and hold-out samples look to a model.

    Accuracies are shares of correct answers, from 0 to 1. Dimensional alignment (DA) is the share
    of a sample's feature variation that lies in the main directions of the retain set, from 0 to 1.
    """

    forget_accuracy: float
    """Accuracy on the samples to forget, from 0 to 1."""

    retain_accuracy: float
    """Accuracy on training samples that stay, from 0 to 1."""

    holdout_accuracy: float | None
    """Accuracy on hold-out samples of the classes that stay, from 0 to 1; null if there are
    none."""

    da_forget: float
    """Mean dimensional alignment of the samples to forget, from 0 to 1."""

    da_holdout: float | None
    """Mean dimensional alignment of hold-out samples of the same classes, from 0 to 1. This is
    where `da_forget` should end up. Null if it was not measured."""

    da_gap: float | None
    """The alignment gap, `da_forget - da_holdout`; about 0 for samples the model never saw. Null if
    it was not measured."""

    da_gap_low: float | None
    """Lower end of the 95 % bootstrap interval of `da_gap`; null if there are too few samples."""

    da_gap_high: float | None
    """Upper end of the 95 % bootstrap interval of `da_gap`; null if there are too few samples."""


class Failure(Out):
    """Why a job failed."""

    kind: str
    """What was at fault: `input` (the data, the model or the request), `method` (the unlearning
    itself), `memory`, `bug`, `worker_lost`, `storage`, `database` or `time_limit`."""

    reason: str
    """The reason in plain words, and what to do about it."""


class VersionBrief(Out):
    """A model version, by number and digest."""

    number: int
    """The version's number, counted from 1 within its model."""

    weights_sha256: str
    """SHA-256 of the version's safetensors file, in hex."""


class Registered(Out):
    """What every resource has that a job makes ready."""

    id: UUID
    """The id under which the audit trail mentions it."""

    name: str
    """The name it was registered under, which is unique among its kind."""

    created_at: Instant
    """When it was first registered."""

    ready_at: Instant | None
    """When it became ready to use; null until then."""

    failure: str | None
    """Why the registration failed; null if it did not. Mend the cause, then register it again under
    the same name."""

    deleted_at: Instant | None = None
    """When it was deleted; null unless its status is `deleted`."""

    purged_at: Instant | None = None
    """When everything that was stored of it was gone, but for what the evidence needs; null until
    then."""

    job_id: UUID
    """The newest job that works on the registration; follow it at `/v1/jobs/{job_id}`."""
