"""How a run is configured, and the one set of defaults that every problem starts from."""

import math
from dataclasses import dataclass
from enum import StrEnum


class Objective(StrEnum):
    """What forgetting means for a job."""

    UNTRAIN_SAMPLES = "untrain_samples"
    """Behave as if never trained on these samples."""

    REMOVE_CLASS = "remove_class"
    """No longer know the classes of these samples."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Everything a run depends on besides the network and the samples.

    Raises:
        ValueError: a value is outside its range; the message names the field.
    """

    objective: Objective
    cycles: int
    """Forget phase plus recover phase, this many times."""

    forget_epochs: int
    """Passes over the forget set in each cycle."""

    forget_lr: float
    """Of plain SGD, at the start; annealed by a cosine over the whole run."""

    recover_samples: int
    """Retain samples seen in each cycle, drawn class-balanced from the reservoir."""

    recover_lr: float
    """Of SGD with momentum, at the start; annealed by a cosine over the whole run."""

    batch_size: int
    """In the forget phase, half of it are hold-out samples that keep the others company."""

    alignment_weight: float
    distillation_weight: float
    masked_overshoot: float
    """The masked target's share in the mix with the calibrated one, as a multiple of the error on
    the hold-out of the class; the share is at most 1. Lost classes are masked entirely."""

    k: int | None = None
    """Directions of the eigenspace; None stands for the number of retained classes - 1."""

    scoring_samples: int = 1000
    """At most so many samples of each set are looked at between cycles."""

    seed: int = 0

    def __post_init__(self) -> None:
        for field in ("cycles", "forget_epochs", "recover_samples"):
            self._require(field, at_least=1)
        self._require("batch_size", at_least=2)
        for field in ("forget_lr", "recover_lr", "alignment_weight", "distillation_weight"):
            self._require(field, at_least=0)
        self._require("masked_overshoot", at_least=0)
        self._require("scoring_samples", at_least=2)
        if self.k is not None:
            self._require("k", at_least=1)

    def _require(self, field: str, *, at_least: float) -> None:
        value = getattr(self, field)
        if not (at_least <= value < math.inf):
            raise ValueError(f"{field} must be finite and >= {at_least}, got {value}")


def default_config(
    objective: Objective, *, forget_count: int, reservoir_count: int, seed: int = 0
) -> Config:
    """The defaults, scaled to the size of the problem and to nothing else.

    Small sets get small batches, so that each phase has enough steps to act, and small forget
    sets get more epochs for the same reason. The work of a run does not grow with the dataset.
    """
    batch_size = 2 ** round(math.log2(min(max(reservoir_count / 16, 16), 128)))
    batches = max(math.ceil(forget_count / (batch_size // 2)), 1)
    removing = objective is Objective.REMOVE_CLASS
    return Config(
        objective=objective,
        cycles=3 if removing else 4,
        forget_epochs=max(1, math.ceil(16 / batches)),
        forget_lr=0.15,
        recover_samples=min(3000, 4 * reservoir_count),
        recover_lr=0.02,
        batch_size=batch_size,
        alignment_weight=5.0 if removing else 1.0,
        distillation_weight=1.0,
        masked_overshoot=2.5,
        seed=seed,
    )
