"""Whether the network that was registered answers as the one that was trained.

A network on other inputs, or with its classes in another order, still loads and still answers. What
gives it away is its accuracy: against what its team measured, or against what no trained network
shows. Shapes: C classes.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from domain.errors import JobError

CHANCE_FACTOR = 1.5
"""A network that knows its training samples is better than this multiple of chance."""

ERROR_RATE = 0.001
"""How often a network that is as it should be is refused, in each comparison that draws samples."""

QUANTILE = 3.29
"""Of the normal distribution: beyond it, to both sides, lies ERROR_RATE."""

NOTICEABLE = 0.01
"""A smaller difference between training samples and hold-out is no objection, however certain."""

ROUNDING = 1e-9
"""0.985 and 0.975 differ by no more than 0.01, though as floats they do."""

NO_BETTER_THAN_CHANCE = "no_better_than_chance"
WORSE_THAN_HOLDOUT = "worse_than_holdout"

CAUSES = (
    "The likely causes are the preprocessing (size, colour channels, orientation, scale, mean and "
    "std), the order of the classes in the dataset and in the model, and the weights file; correct "
    "that and register the model again."
)
WAY_OUT = (
    "If the model is as it should be, state in `expected_accuracy` what you measured, or set "
    "`accept_accuracy`; every certificate of the model will then say so."
)


@dataclass(frozen=True, slots=True)
class Answered:
    """How many samples of each class a network was shown, and how many it answered correctly."""

    right: Tensor
    """(C,) int64."""

    shown: Tensor
    """(C,) int64."""

    @classmethod
    def of(cls, logits: Tensor, labels: Tensor, classes: int) -> "Answered":
        """Count answers (N, C) to samples with these labels (N,)."""
        right = labels[logits.argmax(1) == labels] if len(labels) else labels
        return cls(right.bincount(minlength=classes), labels.bincount(minlength=classes))

    @property
    def samples(self) -> int:
        return int(self.shown.sum())

    @property
    def accuracy(self) -> float | None:
        """Share of correct answers; None without samples."""
        return int(self.right.sum()) / self.samples if self.samples else None

    @property
    def classes(self) -> int:
        """How many classes have samples."""
        return int((self.shown > 0).sum())

    @property
    def class_mean(self) -> float | None:
        """Mean over the classes of the share of correct answers; None without samples.

        Whoever gives one answer to everything gets 1 / C, however unequal the classes are.
        """
        there = self.shown > 0
        if not there.any():
            return None
        return (self.right[there].double() / self.shown[there]).mean().item()


def require_plausible(
    train: Answered,
    holdout: Answered,
    *,
    holdout_size: int,
    expected: Mapping[str, float] | None,
    accepted: bool,
) -> dict[str, Any]:
    """Compare a network's accuracy with what is known of it.

    Args:
        train: on all training samples.
        holdout: on a random draw from the hold-out, of `holdout_size` samples, or on all of it.
        expected: `train`, `holdout` or both, as the team measured them, and `tolerance`.
        accepted: what would be objected to without `expected` is noted, and does not refuse.

    Returns:
        The figures and the objections, in JSON.

    Raises:
        JobError: a figure differs from the expected one; or none was expected, and a trained
            network would not answer like this.
    """
    if expected is not None:
        for refusal in _mismatches(train, holdout, holdout_size, expected):
            raise JobError(refusal)
    objections = {} if expected is not None else dict(_objections(train, holdout))
    if objections and not accepted:
        raise JobError(" ".join([*objections.values(), CAUSES, WAY_OUT]))
    return {
        "train": train.accuracy,
        "train_class_mean": train.class_mean,
        "train_samples": train.samples,
        "train_right": int(train.right.sum()),
        "holdout": holdout.accuracy,
        "holdout_samples": holdout.samples,
        "holdout_right": int(holdout.right.sum()),
        "chance": 1 / max(train.classes, 1),
        "expected": None if expected is None else dict(expected),
        "accepted": accepted,
        "objections": list(objections),
    }


def _mismatches(
    train: Answered, holdout: Answered, holdout_size: int, expected: Mapping[str, float]
) -> Iterator[str]:
    tolerance = expected["tolerance"]
    for name, answered, of, what in (
        ("train", train, train.samples, "training samples, in evaluation mode and as they are"),
        ("holdout", holdout, holdout_size, "hold-out samples"),
    ):
        wanted = expected.get(name)
        if wanted is None:
            continue
        measured = answered.accuracy
        if measured is None:
            yield (
                f"`expected_accuracy.{name}` is {wanted:g}, but the dataset has no {name} samples "
                "to measure it on. Leave it out, or register the model with the right dataset."
            )
            continue
        allowed = tolerance + sampling_error(
            wanted, measured, tolerance, drawn=answered.samples, of=of
        )
        if abs(measured - wanted) > allowed + ROUNDING:
            yield (
                f"The network's accuracy is {measured:.4f} on {answered.samples} {what}, but "
                f"`expected_accuracy.{name}` is {wanted:g}: that differs by more than "
                f"{allowed:.3f}. {CAUSES} If the figure was measured on other samples or with "
                "augmentation, correct `expected_accuracy`."
            )


def sampling_error(
    expected: float, measured: float, tolerance: float, *, drawn: int, of: int
) -> float:
    """How far the accuracy on `drawn` of `of` samples may be from that on all of them, by chance.

    0 where all were measured. The variance is that of the accuracy nearest to what was measured
    that the tolerance allows.
    """
    if drawn >= of:
        return 0.0
    nearest = min(max(measured, expected - tolerance, 0.0), expected + tolerance, 1.0)
    variance = nearest * (1 - nearest) / drawn * (of - drawn) / max(of - 1, 1)
    return QUANTILE * math.sqrt(variance) + 0.5 / drawn


def _objections(train: Answered, holdout: Answered) -> Iterator[tuple[str, str]]:
    """What no trained network shows: a name and a sentence for each."""
    mean, classes = train.class_mean, train.classes
    if mean is not None and classes > 1 and mean <= CHANCE_FACTOR / classes:
        yield (
            NO_BETTER_THAN_CHANCE,
            f"The network answers its own training samples no better than chance: its accuracy on "
            f"{train.samples} of them is {train.accuracy:.4f}, and {mean:.4f} as the mean over "
            f"{classes} classes, where {1 / classes:.4f} is chance and more than "
            f"{CHANCE_FACTOR:g} times that is required.",
        )
    if worse_by_evidence(train, holdout):
        yield (
            WORSE_THAN_HOLDOUT,
            "The network answers its own training samples worse than its hold-out: its accuracy is "
            f"{train.accuracy:.4f} on {train.samples} of the former and {holdout.accuracy:.4f} on "
            f"{holdout.samples} of the latter, which chance explains in fewer than 1 of "
            f"{1 / ERROR_RATE:.0f} cases.",
        )


def worse_by_evidence(train: Answered, holdout: Answered) -> bool:
    """Whether training samples are answered worse than hold-out samples of the same classes.

    By the test of Cochran, Mantel and Haenszel, one-sided at ERROR_RATE, with the classes as
    strata, so that another mix of classes is no evidence; and only if the difference, in the
    hold-out's mix, is more than NOTICEABLE.
    """
    both = (train.shown > 0) & (holdout.shown > 0)
    if not both.any():
        return False
    mine, theirs = train.shown[both].double(), holdout.shown[both].double()
    right, right_theirs = train.right[both].double(), holdout.right[both].double()
    everyone, all_right = mine + theirs, right + right_theirs
    variance = mine * theirs * all_right * (everyone - all_right)
    variance = (variance / (everyone**2 * (everyone - 1))).sum()
    missing = (mine * all_right / everyone - right).sum()
    share = theirs / theirs.sum()
    gap = (share * (right_theirs / theirs - right / mine)).sum()
    if variance == 0 or gap <= NOTICEABLE:
        return False
    p_value = 0.5 * torch.special.erfc(missing / variance.sqrt() / math.sqrt(2))
    return bool(p_value < ERROR_RATE)
