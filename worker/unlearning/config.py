"""The configuration of a run, and the one set of defaults that every problem starts from."""

import math
from dataclasses import dataclass

FEW = 100
"""Up to so many forget samples, one cycle is enough: it takes few steps, which do little damage."""

MORE = 1
"""So many cycles may follow where samples are remembered. A network that does not get there in one
takes damage from others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Everything a run depends on besides the network and the samples.

    Raises:
        ValueError: a value is outside its range; the message names the field.
    """

    removing: bool
    """Whether to remove the classes of the forget set as a concept; otherwise the network should
    behave as if never trained on these samples."""

    cycles: int
    """The fewest cycles of a run; a cycle is one forget phase plus one recover phase."""

    more_cycles: int
    """The most cycles that follow them, each because the network still remembers."""

    forget_epochs: int
    """Passes over the forget set in each cycle."""

    forget_lr: float
    """Initial learning rate of plain SGD; cosine-annealed over the whole run."""

    recover_least: int
    """The fewest retain samples seen in the recover phase of a cycle, drawn from the reservoir."""

    recover_most: int
    """The most of them."""

    recover_gain: float
    """How many more than the fewest, per nat that the forget phase took the network away from its
    own answers to retain samples."""

    label_share: float
    """Share of the true label in what retain samples are to be answered; the rest is what the
    original answers. True labels bring back single samples that were forgotten; where a class
    leaves, there is nothing to bring back."""

    recover_lr: float
    """Learning rate of SGD with momentum."""

    anneal: bool = True
    """Anneal the learning rate of the forget phase; otherwise it stays constant."""

    batch_size: int
    """Batch size of the recover phase. A batch of the forget phase has five eighths of it."""

    forget_batch: int
    """The most forget samples in a batch of the forget phase; retain companions fill it up. Less
    than the whole batch."""

    held: int
    """The most forget samples that accompany a batch of the recover phase and are held.
    When a class is removed, unseen samples of it are among them, and the means of both are
    noisy."""

    frozen_share: float = 0.1
    """Leading convolutions with at most this share of the parameters are frozen: they hold little
    about single samples, and retain samples depend on them."""

    alignment_weight: float
    """Weight of the squared distance from the mean of unseen samples, in units of the spread."""

    distillation_weight: float
    retain_weight: float = 1.0
    """Weight of the cross-entropy of the companions in the forget phase."""

    membership_weight: float = 0.3
    """Weight of the distance between the losses of forget samples and those of unseen ones."""

    early_share: float | None = None
    """Share of an early layer's answers in the mix with the model's own; None picks the share that
    predicts unseen samples best."""

    sharpen: bool = True
    """Make the targets as confident as the original is on unseen samples: a mix is less so."""

    hold_weight: float
    """Weight of the distillation of the forget samples that accompany a recover phase."""

    push: float
    """Nats by which the true class is pushed below its place in the targets, per unit of membership
    AUC that a batch is above its aim."""

    push_rate: float
    """Nats by which the true class is pushed further below its place in the targets after a step,
    per unit of membership AUC that the batch is above its aim."""

    overshoot: float
    """How far below its aim the membership AUC is brought in the forget phase, because the recover
    phase brings some of it back."""

    k: int | None = None
    """Directions of the eigenspace; None means the number of retained classes - 1."""

    scoring_samples: int = 500
    """The most samples of each set that are scored between cycles."""

    seed: int = 0

    @property
    def most_cycles(self) -> int:
        return self.cycles + self.more_cycles

    def __post_init__(self) -> None:
        for field in ("cycles", "forget_epochs", "recover_least"):
            self._require(field, at_least=1)
        self._require("batch_size", at_least=4)
        self._require("forget_batch", at_least=1, at_most=self.batch_size * 5 // 8 - 1)
        self._require("held", at_least=1)
        self._require("more_cycles", at_least=0)
        self._require("recover_most", at_least=self.recover_least)
        for field in (
            "forget_lr", "recover_lr", "alignment_weight", "distillation_weight",
            "retain_weight", "membership_weight", "hold_weight", "push", "push_rate", "overshoot",
            "recover_gain",
        ):  # fmt: skip
            self._require(field, at_least=0)
        self._require("scoring_samples", at_least=2)
        for field in ("frozen_share", "label_share"):
            self._require(field, at_least=0, at_most=1)
        if self.k is not None:
            self._require("k", at_least=1)
        if self.early_share is not None:
            self._require("early_share", at_least=0, at_most=1)

    def _require(self, field: str, *, at_least: float, at_most: float = math.inf) -> None:
        value = getattr(self, field)
        if not (at_least <= value <= at_most and math.isfinite(value)):
            limit = f" and <= {at_most}" if at_most < math.inf else ""
            raise ValueError(f"{field} must be finite and >= {at_least}{limit}, got {value}")


def default_config(
    *,
    removing: bool,
    forget_count: int,
    reservoir_count: int,
    skew: float = 0.0,
    seed: int = 0,
    level: int = 0,
) -> Config:
    """The defaults, scaled to the size of the problem, the mix of its classes, and nothing else.

    Small sets get small batches, so that each phase has enough steps; small forget sets also get
    more epochs. The more the class mix of the forget set differs from that of the retain set, the
    more retain samples share its batches, unless the class is removed: otherwise batch
    normalisation would see another mix than in use. The work of a run does not grow with the
    dataset, and the work of the recover phase follows the damage, within limits.

    Args:
        skew: distance of the forget set's class mix from the retain set's, in [0, 1]; see
            `samples.skew`.
        level: 0 for the first try; 1 for one more cycle, or twice as many where a class is removed;
            2 for the same with twice the rate of the forget phase and up to twice the recover
            samples, fewer for fewer than 200 forget samples.
    """
    batch_size = 2 ** round(math.log2(min(max(reservoir_count / 16, 16), 128)))
    half = batch_size // 2
    forget_batch = half if removing else max(round(half * (1 - skew)), half // 4)
    batches = max(math.ceil(forget_count / forget_batch), 1)
    first = 2 if removing or forget_count > FEW else 1
    more = 1 if level < 2 else 1 + min(forget_count / 200, 1)
    least, most = (3600, 3600) if removing else (2200, 5000)
    return Config(
        removing=removing,
        cycles=first if level == 0 else 2 * first if removing else first + 1,
        more_cycles=0 if removing else MORE,
        forget_epochs=max(2 if removing else 4, math.ceil((30 if removing else 8) / batches)),
        forget_lr=(0.07 if removing else 0.11) * (1 if level < 2 else 2),
        label_share=1.0 if removing else 0.1,
        recover_least=round(min(least, 4 * reservoir_count) * more),
        recover_most=round(min(most, 8 * reservoir_count) * more),
        recover_gain=15_000,
        recover_lr=0.03,
        batch_size=batch_size,
        forget_batch=forget_batch,
        held=half if removing else min(round(half * 0.8), forget_batch),
        alignment_weight=0.3 if removing else 0.04,
        distillation_weight=1.0,
        hold_weight=0.0 if removing else 0.1,
        push=12.0,
        push_rate=0.15,
        overshoot=0.12,
        seed=seed,
    )
