"""Where samples shall end up in a cycle, given how unseen samples stand at its start.

Shapes: F forget samples, L unseen samples of classes that leave, N of both, C classes.
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
"""The least spread of DA, or of the logarithm of norms, that distances are told in units of: where
the eigenspace is all there is, every DA is 1."""


@dataclass(frozen=True, slots=True)
class View:
    """How a network stands: what is looked at before the first cycle and after each."""

    forget: Outputs
    retain: Outputs
    holdout: Outputs
    space: Eigenspace


@dataclass(frozen=True, slots=True)
class Goal:
    """Samples to be forgotten, and where they shall end up."""

    samples: Samples
    """The forget set, as the stem leaves it; where a class leaves, calibration samples of that
    class after it, to be compared with: nothing is learned from them."""

    forgotten: Tensor
    """(N,) bool, on the CPU: the forget set."""

    leaving: Tensor
    """(N,) bool, on the CPU: of classes that leave."""

    answers: Tensor
    """(F, C) probabilities."""

    offsets: Tensor
    """(N,) by how much the DA of unseen samples of the same class is above that of retain samples:
    negative, as a rule."""

    spread: Tensor
    """(2,) positive: standard deviation of the `standing` of retain samples."""

    space: Eigenspace
    unseen_losses: Tensor
    """(M,) losses of unseen samples as hard as the forget samples whose class stays, in their
    class mix."""

    def to(self, device: torch.device) -> "Goal":
        """The same, with what is calculated with on that device."""
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

    The predictions (F, C), made as sure as those of one model. Nothing is left for lost classes.
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
    """Where the samples shall end up, given how unseen samples stand now."""
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

    It aims at what the AUC is where forget samples stand among unseen ones by how hard they are:
    their mean ease, 0.5 for samples as hard as those. Few samples say little about the AUC: the
    step is shrunk by n / (n + 10). Never negative: nothing is taught anew. Our reconstruction.

    Args:
        ease: (S,) of the forget samples whose class stays; only they are aimed at.
    """
    staying = view.forget.select(~lost[view.forget.labels])
    auc = membership_auc(staying, view.holdout) if len(staying.labels) else None
    if auc is None:
        return shift
    count = len(staying.labels)
    excess = auc - ease.mean().item()
    return max(shift + config.shift_gain * excess * count / (count + 10), 0.0)


def _quantiles(values: Tensor, weights: Tensor, places: Tensor) -> Tensor:
    """(M,) the values (N,), each counted by its weight (N,), at these places (M,) in (0, 1)."""
    ordered, order = values.sort()
    reached = weights[order].cumsum(0)
    chosen = torch.searchsorted(reached, places.double() * weights.sum())
    return ordered[chosen.clamp_max(len(values) - 1)]


def _class_means(values: Tensor, labels: Tensor, count: int) -> Tensor:
    """(C,) mean of the values (N,) over each class; over all, for a class that is not there."""
    means = values.mean().repeat(count)
    for label in classes(labels):
        means[label] = values[labels == label].mean()
    return means
