"""Waiting for jobs, without asking more often than the service wants, and with news on the way."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar
from uuid import UUID

from lethe.calls import Call
from lethe.core import NOT_MODIFIED, Core, understood
from lethe.errors import StillWaiting, Unavailable, Unreachable
from lethe.retrying import retry_after
from lethe.routes.jobs import Jobs
from lethe.schemas.common import Followed
from lethe.schemas.jobs import Job

F = TypeVar("F", bound=Followed)
T = TypeVar("T")

PAUSE_S = 2.0
"""Between two questions where the service does not say."""

OUTAGE_S = 600.0
"""How long the service may be away, on end, while something is waited for."""


@dataclass(frozen=True, slots=True)
class Progress(Generic[F]):
    """News of what is waited for."""

    subject: F
    jobs: list[Job]
    """The jobs that work on it, as far as they are planned."""

    @property
    def fraction(self) -> float:
        """Share of the jobs' work that is done, 0 to 1."""
        return sum(job.progress for job in self.jobs) / len(self.jobs) if self.jobs else 0.0

    @property
    def phase(self) -> str | None:
        """What is being done now, for people."""
        return next((job.phase for job in self.jobs if not job.is_settled and job.phase), None)


@dataclass(slots=True)
class _Watched(Generic[T]):
    """Something that is asked for again and again, and sent only when it has changed."""

    call: Call[T]
    seen: T | None = None
    tag: str | None = None
    pause: float = PAUSE_S

    async def look(self, core: Core) -> bool:
        """Ask for it; whether it has changed."""
        answer = await core.answer(self.call, self.tag)
        self.pause = retry_after(answer.headers) or PAUSE_S
        if answer.status == NOT_MODIFIED:
            return False
        self.seen, self.tag = understood(self.call, answer), answer.headers.get("etag")
        return True


@dataclass(slots=True)
class _Scene(Generic[F]):
    """A subject and its jobs."""

    subject: F
    watched: _Watched[F]
    with_jobs: bool
    jobs: dict[UUID, _Watched[Job]] = field(default_factory=dict)

    async def look(self, core: Core) -> bool:
        """Ask for all of it; whether anything has changed."""
        changed = await self.watched.look(core)
        self.subject = self.watched.seen or self.subject
        if self.with_jobs:
            for job_id in self.subject.job_ids():
                call = Jobs.read_job.describe(None, job_id)
                changed |= await self.jobs.setdefault(job_id, _Watched(call)).look(core)
        return changed

    @property
    def progress(self) -> Progress[F]:
        watched = (self.jobs.get(job_id) for job_id in self.subject.job_ids())
        return Progress(self.subject, [job.seen for job in watched if job and job.seen])


async def wait(
    core: Core,
    subject: F,
    patience: float | None,
    on_progress: Callable[[Progress[F]], object] | None,
) -> F:
    """The subject once it is settled.

    A service that is away for a while is waited for, too.

    Args:
        patience: seconds to wait at most; None for as long as it takes.

    Raises:
        StillWaiting: the time is over.
    """
    started = answered = time.monotonic()
    scene = _Scene(subject, _Watched(subject.again()), with_jobs=on_progress is not None)
    while True:
        try:
            changed = await scene.look(core)
        except (Unreachable, Unavailable):
            changed = False
            if time.monotonic() - answered > OUTAGE_S:
                raise
        else:
            answered = time.monotonic()
        if changed and on_progress is not None:
            on_progress(scene.progress)
        if scene.subject.is_settled:
            return scene.subject
        left = None if patience is None else started + patience - time.monotonic()
        if left is not None and left <= 0:
            raise StillWaiting(
                f"It is not settled after {patience:g} seconds. It goes on; wait again.",
                scene.subject,
            )
        pause = scene.watched.pause
        await core.transport.sleep(pause if left is None else min(pause, left))
