"""Whether one retraining is cheaper than jobs that change the model. Pure: what waits and what was
measured come in; a choice comes out, and why, in words.

Compared is what the next job can answer. What comes after it needs a job of its own either way, so
it counts only as far as it will wait with the others; see docs/decisions/0027.
"""

import math
from dataclasses import dataclass

from domain.training_time import TrainingTime
from worker.jobs.unlearn.job_time import JobTime

UNTIMED = "The model is changed: what {what} takes was not measured on this kind of device."
TOO_LATE = (
    " A retraining would take no longer, but not be over by the earliest due date, or within the "
    "time limit of a job."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """What is to be forgotten, and what was measured of the two ways to do it."""

    requests: int
    """That can be answered together, the job's own among them."""

    expected: int = 0
    """How many of these have not come yet, but will by then at the rate of late."""

    samples: float
    """That they name."""

    max_samples: int
    """The most that a job changes the model for."""

    job: JobTime | None
    """Of one that changes the model; None where nothing was measured."""

    retraining: TrainingTime | None
    remain: int
    """Samples that a retraining learns from."""

    around: float = 0.0
    """Seconds that a job spends on looking at its model before and after, whichever way it goes."""

    left: float
    """Seconds until the earliest due date."""

    limit: float
    """The most seconds that a job may take."""

    begun: bool = False
    """Whether an earlier attempt of the job has begun to change the model: then it goes on."""

    failed: bool = False
    """Whether the last retraining did not become a version that may be served."""

    later: int = 0
    """Requests that will come after these and before the earliest due date, at the rate of late."""

    later_seconds: float = 0.0
    """What jobs for those will take that change the model."""

    @property
    def jobs(self) -> int:
        """How many jobs would change the model."""
        return max(math.ceil(self.samples / self.max_samples), 1)

    @property
    def retrains(self) -> bool:
        """Whether a retraining takes no longer than these jobs, and ends in time, or at least no
        later than the first of them."""
        if self.job is None or self.retraining is None or self.begun or self.failed:
            return False
        first = self.job.of(min(self.samples, self.max_samples))
        in_time = self._to_retrain <= max(min(self.left, self.limit), first)
        return in_time and self._to_retrain <= self._to_change

    @property
    def reason(self) -> str:
        """Why so, for people, with what was measured and what was assumed."""
        if self.begun:
            return "The model is changed, as an earlier attempt of the job began to."
        if self.failed:
            return (
                "The model is changed: its last retraining failed, as the round of that job says."
            )
        if self.retraining is None:
            return UNTIMED.format(what="a retraining")
        if self.job is None:
            return UNTIMED.format(what="that")
        retraining = f"about {span(self._to_retrain)} (judged by {self.retraining.basis})"
        several = f", in {self.jobs} jobs," if self.jobs > 1 else ""
        changing = f"{several} about {span(self._to_change)} (judged by {self.job.basis})"
        if self.retrains:
            return (
                f"The model is retrained: {self._who}, a retraining takes {retraining}, and "
                f"changing the model{changing}."
            )
        late = TOO_LATE if self._to_retrain <= self._to_change else ""
        return (
            f"The model is changed: {self._who}, that takes{changing}, and a retraining "
            f"{retraining}.{late}"
        )

    @property
    def advice(self) -> str:
        """What would be cheaper than doing now what waits, for people; else nothing."""
        if self.job is None or self.retraining is None or self.failed:
            return ""
        if self.retrains or not self.later:
            return ""
        together = self._to_change + self.later_seconds
        if together < self._to_retrain:
            return ""
        return (
            f" At the rate of the last 30 days about {self.later} more requests come before the "
            f"due date, and jobs for all of them take about {span(together)}: sent together, they "
            "could be answered by one retraining."
        )

    @property
    def _to_change(self) -> float:
        assert self.job is not None  # noqa: S101 (whoever asks has looked)
        return self.jobs * self.job.constant + self.job.per_sample * self.samples

    @property
    def _to_retrain(self) -> float:
        assert self.retraining is not None  # noqa: S101 (whoever asks has looked)
        return self.retraining.on(self.remain) + self.around

    @property
    def _who(self) -> str:
        if self.expected:
            return (
                f"{self.requests} requests are answered together ({self.expected} of them expected "
                "until then, as many as came in the last 30 days)"
            )
        return "1 request waits" if self.requests == 1 else f"{self.requests} requests wait"


def span(seconds: float) -> str:
    """A length of time in words, to two or three digits."""
    if seconds < 1:
        return "a second"
    for unit, size, most in (("s", 1, 120), ("min", 60, 7200), ("h", 3600, 172_800)):
        if seconds < most:
            number = seconds / size
            return f"{number:.2g} {unit}" if number < 10 else f"{number:.0f} {unit}"
    return f"{seconds / 86_400:.0f} days"
