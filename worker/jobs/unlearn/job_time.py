"""How long a job takes that changes its model: so much in any case, and so much for each sample."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from worker.unlearning.config import Config, default_config

MANY = 10_000
"""Samples of the large job between which and a job of one sample a line is drawn."""


@dataclass(frozen=True, slots=True)
class JobTime:
    """A line through what was measured. Neither part is negative."""

    constant: float
    """Seconds."""

    per_sample: float
    """Seconds."""

    basis: str = ""
    """What it rests on, as the end of "…, judged by"."""

    def of(self, samples: float) -> float:
        """Seconds for a job that forgets so many."""
        return self.constant + self.per_sample * samples


def line(timings: Sequence[tuple[int, float]], basis: str = "") -> JobTime:
    """The line through numbers of samples and seconds, by least squares.

    Their mean where all jobs had the same number of samples, or larger ones took no longer.
    """
    counts, took = zip(*timings, strict=True)
    if len(set(counts)) > 1:
        slope, constant = statistics.linear_regression(counts, took)
        if slope >= 0 and constant >= 0:
            return JobTime(constant, slope, basis)
    return JobTime(statistics.fmean(took), 0.0, basis)


def steps(config: Config, forget: int) -> float:
    """How many steps of `Config.batch_size` samples a round takes."""
    to_forget = config.forget_epochs * math.ceil(forget / config.forget_batch)
    beside = min(config.held, forget) / config.batch_size
    to_recover = math.ceil(config.recover_most / config.batch_size) * (1 + beside)
    return config.cycles * (to_forget + to_recover)


def foreseen(*, evaluation: float, training: float, reservoir: int) -> JobTime:
    """The time of a job before there was any.

    Args:
        evaluation: seconds of reading and looking at all samples that a job is judged by.
        training: seconds of a training step for each sample of its batch.
        reservoir: number of retain samples kept for jobs.
    """

    def seconds(forget: int) -> float:
        config = default_config(removing=False, forget_count=forget, reservoir_count=reservoir)
        return training * config.batch_size * steps(config, forget)

    slope = max((seconds(MANY) - seconds(1)) / (MANY - 1), 0.0)
    return JobTime(2 * evaluation + seconds(1), slope)
