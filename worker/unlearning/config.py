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
    """Forget phase plus recover phase, at most this many times."""

    forget_epochs: int
    """Passes over the forget set in each cycle."""

    forget_lr: float
    """Of plain SGD, at the start; annealed by a cosine over the whole run."""

    recover_samples: int
    """Retain samples seen in each cycle, drawn class-balanced from the reservoir."""

    recover_lr: float
    """Of SGD with momentum, at the start; annealed by a cosine over the whole run."""

    anneal: bool = True
    """Let both rates fall; they stay otherwise."""

    batch_size: int
    """Of the recover phase. In the forget phase, half of it are forget samples and a quarter
    retain samples that keep them company, more if the forget set does not fill its half."""

    frozen_share: float = 0.1
    """Leading convolutions that hold at most this share of the parameters stay as they are: they
    hold little of single samples, and what retain samples rest on."""

    alignment_weight: float
    distillation_weight: float
    retain_weight: float = 1.0
    """Of the cross-entropy of the company in the forget phase."""

    membership_weight: float = 0.3
    """Of the distance between the losses of forget samples and unseen ones, in classes that
    leave."""

    hard_share: float = 0.5
    """Of the recover samples, so many are those which the model has lost most, of twice as many."""

    masked_share: float | None = None
    """Of the masked answers, where there are no predictions; None stands for the original's error
    on the hold-out of the class."""

    sharpen: bool = True
    """Make out-of-sample predictions as sure as the original is of unseen samples."""

    spread: float = 1.0
    """Nats of noise by which out-of-sample predictions are made to vary as one model's do."""

    initial_shift: float
    """Nats by which the true class is pushed below out-of-sample predictions in the first cycle.
    Without predictions it starts at 0: the masked answers push enough."""

    shift_gain: float
    """Nats added to the shift after a cycle for each unit by which membership AUC is above 0.5."""

    stop_at: float = 0.2
    """Over the last quarter of its cycles, a run ends once the tests on the calibration hold-out
    have at least this p-value; above 1, it never ends early."""

    k: int | None = None
    """Directions of the eigenspace; None stands for the number of retained classes - 1."""

    scoring_samples: int = 500
    """At most so many samples of each set are looked at between cycles."""

    seed: int = 0

    def __post_init__(self) -> None:
        for field in ("cycles", "forget_epochs", "recover_samples"):
            self._require(field, at_least=1)
        self._require("batch_size", at_least=4)
        for field in (
            "forget_lr", "recover_lr", "alignment_weight", "distillation_weight",
            "retain_weight", "membership_weight", "spread", "initial_shift", "shift_gain",
            "stop_at", "frozen_share", "hard_share",
        ):  # fmt: skip
            self._require(field, at_least=0)
        self._require("scoring_samples", at_least=2)
        if self.k is not None:
            self._require("k", at_least=1)
        if self.masked_share is not None:
            self._require("masked_share", at_least=0)

    def _require(self, field: str, *, at_least: float) -> None:
        value = getattr(self, field)
        if not (at_least <= value < math.inf):
            raise ValueError(f"{field} must be finite and >= {at_least}, got {value}")


def default_config(
    objective: Objective,
    *,
    forget_count: int,
    reservoir_count: int,
    seed: int = 0,
    level: int = 0,
) -> Config:
    """The defaults, scaled to the size of the problem and to nothing else.

    Small sets get small batches, so that each phase has enough steps to act, and small forget
    sets get more epochs for the same reason, and less of a push: a hundred samples were seen to
    be forgotten too much with what a thousand need. The work of a run does not grow with the
    dataset.

    Args:
        level: 0 for the first try; 1 for twice the cycles; 2 for twice the cycles at higher rates.
    """
    batch_size = 2 ** round(math.log2(min(max(reservoir_count / 16, 16), 128)))
    batches = max(math.ceil(forget_count / (batch_size // 2)), 1)
    removing = objective is Objective.REMOVE_CLASS
    return Config(
        objective=objective,
        cycles=3 * (1 if level == 0 else 2),
        forget_epochs=max(2 if removing else 3, math.ceil(10 / batches)),
        forget_lr=(0.07 if removing else 0.1) * (1 if level < 2 else 2),
        recover_samples=min(2000, 4 * reservoir_count) * (1 if level < 2 else 2),
        recover_lr=0.04,
        batch_size=batch_size,
        alignment_weight=5.0 if removing else 2.0,
        distillation_weight=1.0,
        initial_shift=2.5 * min(forget_count / 250, 1),
        shift_gain=10.0,
        seed=seed,
    )
