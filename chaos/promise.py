"""What a client was told; the checker measures the service against it."""

import threading
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID


@dataclass(slots=True)
class Sent:
    """Something that was sent under a key; several threads may add to it."""

    key: str
    answers: set[bytes] = field(default_factory=set, kw_only=True)
    """The distinct bodies in answers to the key, or what must not differ in them."""

    times: int = field(default=0, kw_only=True)
    """How many times the key was sent."""

    complaints: list[str] = field(default_factory=list, kw_only=True)
    """What the client saw but should not have."""

    lock: threading.Lock = field(default_factory=threading.Lock, repr=False, kw_only=True)


@dataclass(slots=True)
class Promise(Sent):
    """One deletion request as its client sees it."""

    samples: frozenset[str]
    models: frozenset[str]
    """The names of the models that must forget."""

    request_id: UUID | None = None
    """Known after the first 202."""

    cancel_asked: bool = False
    cancelled: bool = False
    """Whether a cancellation succeeded."""


@dataclass(slots=True)
class Offer(Sent):
    """A version that was trained elsewhere, or another state of a dataset."""

    of: str
    """Name of the model or the dataset."""

    ids: frozenset[str]
    """What the version was trained on; of a state, all its samples."""

    is_state: bool = False
    place: str | None = None
    """Where to follow it; known after the first 202. It ends with the id."""

    @property
    def registration_id(self) -> UUID | None:
        return None if self.place is None else UUID(self.place.rpartition("/")[2])


@dataclass(frozen=True, slots=True)
class Death:
    """A worker that was lost or ended while it held a job."""

    kind: str
    job_id: UUID
    attempt: int
    at: datetime
