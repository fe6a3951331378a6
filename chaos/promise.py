"""What a client was told: the yardstick of the checker."""

import threading
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID


@dataclass(slots=True)
class Promise:
    """One deletion request as its client knows it; several threads may add to it."""

    key: str
    samples: frozenset[str]
    models: frozenset[str]
    """Names of those that are to forget."""

    request_id: UUID | None = None
    """Known as soon as a 202 came."""

    answers: set[bytes] = field(default_factory=set)
    """The different bodies that answered the key."""

    sent: int = 0
    """How often the key was sent."""

    cancel_asked: bool = False
    cancelled: bool = False
    """Whether a cancellation was answered with success."""

    complaints: list[str] = field(default_factory=list)
    """What the client saw and should not have seen."""

    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)


@dataclass(frozen=True, slots=True)
class Death:
    """A worker that was lost, or ended, while it held a job."""

    kind: str
    job_id: UUID
    attempt: int
    at: datetime
