"""States of datasets: what is different in them."""

from datetime import datetime
from typing import Self
from uuid import UUID

from lethe.calls import Call
from lethe.schemas.common import Followed, RegistrationStatus, Result


class StateFound(Result):
    """What is different in a state: numbers of samples."""

    added: int
    removed: int
    changed: int
    unchanged: int
    unknown: int
    """Indexed by an older release, without digests of their inputs."""

    regrouped: int
    suppressed_returned: int
    """Added, though they may not be trained on."""

    suppressed_still_there: int
    still_known: dict[str, int]
    """By model: what it knows and the files no longer have."""


class DatasetState(Followed):
    """A state of a dataset that was registered after the first one."""

    id: UUID
    dataset: str
    status: RegistrationStatus
    job_id: UUID
    uri: str
    refuse_suppressed: bool
    number: int | None
    found: StateFound | None
    failure: str | None
    """Why it could not be indexed; the state before still is."""

    created_at: datetime
    ready_at: datetime | None

    def again(self) -> Call[Self]:
        return Call(
            method="GET",
            path="/v1/datasets/{name}/states/{state_id}",
            places={"name": self.dataset, "state_id": self.id},
            reads=type(self),
        )

    @property
    def is_settled(self) -> bool:
        return self.status is not RegistrationStatus.PENDING

    def job_ids(self) -> list[UUID]:
        return [self.job_id]
