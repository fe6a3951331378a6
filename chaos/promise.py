"""What a client was told; the checker measures the service against it."""

import threading
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID


@dataclass(slots=True)
class Promise:
    """One deletion request as its client sees it; several threads may add to it."""

    key: str
    samples: frozenset[str]
    models: frozenset[str]
    """The names of the models that must forget."""

    request_id: UUID | None = None
    """Known after the first 202."""

    answers: set[bytes] = field(default_factory=set)
    """The distinct bodies in answers to the key."""

    sent: int = 0
    """How many times the key was sent."""

    cancel_asked: bool = False
    cancelled: bool = False
    """Whether a cancellation succeeded."""

    complaints: list[str] = field(default_factory=list)
    """What the client saw but should not have."""

    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)


@dataclass(frozen=True, slots=True)
class Death:
    """A worker that was lost or ended while it held a job."""

    kind: str
    job_id: UUID
    attempt: int
    at: datetime
