"""Versions that were trained elsewhere: what is offered, and what came of it."""

from datetime import datetime
from typing import Self
from uuid import UUID

from lethe.calls import Call
from lethe.schemas.common import Followed, RegistrationStatus, Result, Verdict
from lethe.schemas.models import ExpectedAccuracy
from lethe.schemas.versions import Declared


class TrainedOnFile(Result):
    """A Parquet file with the ids of exactly the samples that the weights were trained on."""

    uri: str
    column: str = "sample_id"


class TrainedOnSplit(Result):
    """The dataset's training split as it was at some time, without what was suppressed then."""

    split_read_at: datetime
    """Before the first row was read."""


class FoundInVersion(Declared):
    """What the registration of a version found."""

    requests: int
    """How many deletion requests it answered."""

    remeasured: int
    """Of how many forgotten samples it was measured whether it knows them."""

    memory: Verdict | None


class VersionRegistration(Followed):
    """Weights that were offered as a version of a model, and what came of it."""

    id: UUID
    model: str
    status: RegistrationStatus
    job_id: UUID
    weights: str
    trained_on: TrainedOnFile | TrainedOnSplit
    expected_accuracy: ExpectedAccuracy | None = None
    accept_accuracy: bool = False
    accept_memory: bool = False
    version: int | None
    """The number, once they are served."""

    found: FoundInVersion | None
    failure: str | None
    """Why they were refused; the version that was served before still is."""

    created_at: datetime
    ready_at: datetime | None

    def again(self) -> Call[Self]:
        return Call(
            method="GET",
            path="/v1/models/{name}/registrations/{registration_id}",
            places={"name": self.model, "registration_id": self.id},
            reads=type(self),
        )

    @property
    def is_settled(self) -> bool:
        return self.status is not RegistrationStatus.PENDING

    def job_ids(self) -> list[UUID]:
        return [self.job_id]
