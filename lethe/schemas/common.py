"""What results share, and the parts that go out as they come in.

Unknown members are kept: a newer service may say more than this version of the client knows, and
`model_dump` gives it all. What an older client does not know it can still send.
"""

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any, Generic, Self, TypeVar
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from lethe.calls import Call

T = TypeVar("T")


class Result(BaseModel):
    """What the service answers."""

    model_config = ConfigDict(extra="allow", frozen=True, defer_build=True)


class Word(StrEnum):
    """One of a set of words, which a newer service may add to: an unknown one is kept as it is."""

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        if not isinstance(value, str):
            return None
        word = str.__new__(cls, value)
        word._name_, word._value_ = value.upper(), value
        return word


class Page(Result, Generic[T]):
    """Some of the items, and where the next ones are."""

    items: list[T]
    next_cursor: str | None


class Followed(Result):
    """Something that jobs work on: `wait` asks for it until it is settled."""

    def again(self) -> Call[Self]:
        """The call that fetches it as it is now."""
        raise NotImplementedError

    @property
    def is_settled(self) -> bool:
        """Whether it stays as it is until somebody does something."""
        raise NotImplementedError

    def job_ids(self) -> list[UUID]:
        """The jobs that work on it, as far as they are planned."""
        raise NotImplementedError


class JobStatus(Word):
    """Where a job stands."""

    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


OPEN_JOBS = frozenset({JobStatus.QUEUED, JobStatus.RUNNING})


class Mode(Word):
    """How a version is made: trained without the samples, or changed to forget them."""

    APPROXIMATE = "approximate"
    EXACT = "exact"


class Verdict(Word):
    """What the audit of a job says. `no_power` is no success: the tests could not tell."""

    PASS = "pass"  # noqa: S105 (no password)
    FAIL = "fail"
    NO_POWER = "no_power"


class Objective(Word):
    """What forgetting means: behave as if never trained on these samples, or lose the concept."""

    UNTRAIN_SAMPLES = "untrain_samples"
    REMOVE_CLASS = "remove_class"


class RegistrationStatus(Word):
    """Where a dataset or a model stands between being named and being usable."""

    PENDING = "pending"
    READY = "ready"
    FAILED = "failed"
    DELETED = "deleted"


class Failure(Result):
    """Why a job failed."""

    kind: str
    reason: str


class Scores(Result):
    """How forget and hold-out samples look to a model. Accuracies and alignments are in [0, 1]."""

    forget_accuracy: float
    retain_accuracy: float
    holdout_accuracy: float | None
    da_forget: float
    """Dimensional alignment of the forget samples."""

    da_holdout: float | None
    """The same of hold-out samples of the same classes: where `da_forget` should end."""

    da_gap: float | None
    da_gap_low: float | None
    da_gap_high: float | None


class VersionBrief(Result):
    """A model version, by number and digest."""

    number: int
    weights_sha256: str


class Registered(Followed):
    """What a job makes ready: a dataset or a model."""

    id: UUID
    name: str
    status: RegistrationStatus
    created_at: datetime
    ready_at: datetime | None
    failure: str | None
    """Why the registration failed. Mend that, and register the same name again."""

    job_id: UUID
    """The newest job that works on the registration, or purges what was deleted."""

    deleted_at: datetime | None = None
    purged_at: datetime | None = None
    """When all that was stored of it was gone, but for the evidence."""

    @property
    def is_settled(self) -> bool:
        if self.status is RegistrationStatus.DELETED:
            return self.purged_at is not None
        return self.status is not RegistrationStatus.PENDING

    def job_ids(self) -> list[UUID]:
        return [self.job_id]


Settings = Mapping[str, Any]
"""A part of a body as plain JSON members, where a result type would do as well."""
