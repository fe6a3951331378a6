"""How well somebody could guess who was forgotten, as jobs tell it."""

from typing import Self

from domain.tables import Evaluation
from evidence import advantage
from service.fields import Out


class Guesses(Out):
    """What the data do not exclude about one version."""

    bound: float
    """The largest share of right guesses that the data do not exclude, from 0.5, which is chance,
    to 1. It is 1 where one sample or one group was forgotten: that excludes nothing."""

    observed: float | None
    """The share of pairs of a class in which the forgotten sample has the lower loss; null if there
    is no pair. It may be below 0.5: then the higher loss tells, which counts as much."""

    pairs: int
    """How many pairs of different people could be made at a time. The bound rests on these."""

    forgotten: int
    """How many groups, or samples that are on their own, were forgotten."""

    grouped: bool
    """Whether `pairs` and `forgotten` count groups; if not, they count samples."""

    in_part: int = 0
    """How many samples are left out, because others of their groups stay in training: the model may
    know these groups by those, so telling them from unseen ones would show nothing."""

    confidence: float
    """How sure the bound is: the true share is above it with a chance of 1 - `confidence`."""


class AdvantageChange(Out):
    """How well somebody could guess who was forgotten, before and after a job.

    The game: shown one forgotten sample and one of the same class that the model never saw, go by
    the model's loss to guess which is which. The odds are even, so 0.5 is chance.
    """

    before: Guesses
    """On the version that knew the samples."""

    after: Guesses
    """On the new version."""

    remarks: list[str]
    """What this means, in sentences, as certificates say it."""

    @classmethod
    def of(cls, before: Evaluation | None, after: Evaluation | None) -> Self | None:
        """What two evaluations of a job tell; None where they do not."""
        report = advantage.report(
            before.figures if before else None, after.figures if after else None
        )
        if report is None:
            return None
        return cls.model_validate({**report, "remarks": advantage.remarks(report)})
