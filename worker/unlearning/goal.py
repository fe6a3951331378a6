"""The goal of a cycle: where samples should end up, given where unseen samples are at its start.

Shapes: F forget samples, L unseen samples of removed classes, N of both, C classes.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from worker.unlearning import targets
from worker.unlearning.alignment import Eigenspace, alignment, matching_weights, standing
from worker.unlearning.class_removal import without_classes
from worker.unlearning.config import Config
from worker.unlearning.evaluation import Outputs, membership_auc
from worker.unlearning.samples import Samples, classes

SPREAD = 0.01
"""Lower bound on the spread of DA and of log norms, the unit of distances: if the eigenspace is the
whole space, every DA is 1."""


@dataclass(frozen=True, slots=True)
class View:
    """The state of a network: what is measured before the first cycle and after each cycle."""

    forget: Outputs
    retain: Outputs
    holdout: Outputs
    space: Eigenspace


@dataclass(frozen=True, slots=True)
class Goal:
    """The samples to forget, and where they should end up."""

    samples: Samples
    """The stem's outputs for the forget set. If a class is removed, calibration samples of it
    follow, for comparison only: nothing is learned from them."""

    forgotten: Tensor
    """(N,) bool, on the CPU: members of the forget set."""

    leaving: Tensor
    """(N,) bool, on the CPU: samples of removed classes."""

    answers: Tensor
    """(F, C) target probabilities."""

    offsets: Tensor
    """(N,) how much the DA of unseen samples of the same class exceeds that of retain samples;
    usually negative."""

    spread: Tensor
    """(2,) positive: standard deviation of the `standing` of retain samples."""

    space: Eigenspace
    unseen_losses: Tensor
    """(M,) losses of unseen samples as hard as the forget samples of retained classes, in their
    class mix."""

    def to(self, device: torch.device) -> "Goal":
        """The same, with the tensors used in computation on that device."""
        return Goal(
            self.samples,
            self.forgotten,
            self.leaving,
            self.answers.to(device),
            self.offsets.to(device),
            self.spread.to(device),
            self.space.to(device),
            self.unseen_losses.to(device),
        )


def answers_as_unseen(
    labels: Tensor, unseen: Outputs, lost: Tensor, predictions: Tensor, config: Config
) -> Tensor:
    """(F, C) probabilities: what a model that never saw samples of these labels (F,) might answer.

    The predictions (F, C), made as confident as those of one model. Removed classes get nothing.
    """
    predictions = without_classes(predictions, lost)
    if not config.sharpen:
        return predictions
    return targets.sharpened(predictions, _confidence(unseen, labels, lost))


def _confidence(unseen: Outputs, labels: Tensor, lost: Tensor) -> float:
    """Mean of the largest probability on unseen samples, in the class mix of `labels` (F,)."""
    sure = without_classes(unseen.logits.softmax(1), lost).amax(1)
    weights = matching_weights(unseen.labels, labels)
    return (weights @ sure.double()).item()


def goal_of(
    samples: Samples,
    ease: Tensor,
    answers: Tensor,
    shift: float,
    view: View,
    lost: Tensor,
) -> Goal:
    """Where the samples should end up, given where unseen samples are now."""
    labels = samples.labels
    staying = view.holdout.select(~lost[view.holdout.labels])
    unseen = staying if len(staying.labels) else view.holdout
    mine = labels[: len(ease)]
    stays = ~lost[mine]
    kept = standing(view.retain.features, view.space)
    theirs = _class_means(alignment(unseen.features, view.space), unseen.labels, len(lost))
    return Goal(
        samples=samples,
        forgotten=torch.arange(len(labels)) < len(ease),
        leaving=lost[labels],
        answers=targets.shifted(answers, mine, shift),
        offsets=theirs[labels] - kept[:, 0].mean(),
        spread=kept.std(0, correction=0).clamp_min(SPREAD),
        space=view.space,
        unseen_losses=_quantiles(
            unseen.losses(), matching_weights(unseen.labels, mine[stays]), 1 - ease[stays]
        ).float(),
    )


def next_shift(shift: float, view: View, ease: Tensor, lost: Tensor, config: Config) -> float:
    """The shift after one more step of an integral controller of membership AUC.

    It aims at the AUC of forget samples placed among unseen ones by difficulty: their mean ease,
    which is 0.5 for equally hard samples. Few samples say little about the AUC, so the step is
    shrunk by n / (n + 10). Never negative: nothing is taught again. Our reconstruction.

    Args:
        ease: (S,) of the forget samples of retained classes; the aim covers only these.
    """
    staying = view.forget.select(~lost[view.forget.labels])
    auc = membership_auc(staying, view.holdout) if len(staying.labels) else None
    if auc is None:
        return shift
    count = len(staying.labels)
    excess = auc - ease.mean().item()
    return max(shift + config.shift_gain * excess * count / (count + 10), 0.0)


def _quantiles(values: Tensor, weights: Tensor, places: Tensor) -> Tensor:
    """(M,) quantiles of the values (N,), weighted by (N,), at these places (M,) in (0, 1)."""
    ordered, order = values.sort()
    reached = weights[order].cumsum(0)
    chosen = torch.searchsorted(reached, places.double() * weights.sum())
    return ordered[chosen.clamp_max(len(values) - 1)]


def _class_means(values: Tensor, labels: Tensor, count: int) -> Tensor:
    """(C,) mean of the values (N,) over each class; over all values for an absent class."""
    means = values.mean().repeat(count)
    for label in classes(labels):
        means[label] = values[labels == label].mean()
    return means
