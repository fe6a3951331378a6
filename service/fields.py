"""What several schemas share: the kinds of values that go in and come out."""

from datetime import UTC, datetime
from typing import Annotated
from urllib.parse import urlsplit
from uuid import UUID

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, StringConstraints


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
        raise ValueError("out of range") from None


def _splits(uri: str) -> str:
    urlsplit(uri)  # ValueError: not a URI, such as `http://[`
    return uri


STORABLE = r"^[^\x00]*$"
"""Postgres stores every character but NUL."""

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
Label = Annotated[str, StringConstraints(pattern=STORABLE, min_length=1, max_length=255)]
SampleId = Annotated[
    str, StringConstraints(pattern=STORABLE, min_length=1, max_length=512, strict=True)
]
Uri = Annotated[
    str,
    StringConstraints(pattern=STORABLE, min_length=1, max_length=4096),
    AfterValidator(_splits),
]
Instant = Annotated[AwareDatetime, AfterValidator(_in_utc)]


class Scores(Out):
    """How forget and hold-out samples look to a model. Accuracies and alignments are in [0, 1]."""

    forget_accuracy: float
    retain_accuracy: float
    holdout_accuracy: float | None
    da_forget: float
    """Dimensional alignment of the forget samples."""

    da_holdout: float | None
    """The same of hold-out samples of the same classes: where `da_forget` should end."""

    da_gap: float | None
    """`da_forget - da_holdout`, with its 95 % bootstrap interval."""

    da_gap_low: float | None
    da_gap_high: float | None


class Failure(Out):
    """Why a job failed."""

    kind: str
    """`input`, `method`, `memory`, `bug`, `worker_lost`, `storage`, `database` or `time_limit`."""

    reason: str


class VersionBrief(Out):
    """A model version, by number and digest."""

    number: int
    weights_sha256: str


class Registered(Out):
    """What every resource has that a job makes ready."""

    id: UUID
    name: str
    created_at: Instant
    ready_at: Instant | None
    failure: str | None
    """Why the registration failed; register the same name again once that is mended."""

    job_id: UUID
    """The newest job that works on the registration."""
