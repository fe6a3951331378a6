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
from worker.unlearning.evaluation import Outputs
from worker.unlearning.samples import Samples, classes, moved, rows

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

    shift: Tensor
    """() nats by which the true class stands below its place in the targets."""

    offsets: Tensor
    """(N,) how much the DA of unseen samples of the same class exceeds that of retain samples;
    usually negative."""

    spread: Tensor
    """(2,) positive: standard deviation of the `standing` of retain samples."""

    space: Eigenspace
    unseen_losses: Tensor
    """(M,) losses of unseen samples as hard as the forget samples of retained classes, in their
    class mix."""

    def targets(self, chosen: Tensor, shift: Tensor) -> Tensor:
        """(n, C) target probabilities of forget samples, by index (n,), with this shift ()."""
        labels = moved(self.samples.labels[chosen], self.answers.device)
        return targets.shifted(rows(self.answers, chosen), labels, shift)

    def to(self, device: torch.device) -> "Goal":
        """The same, with the tensors used in computation on that device."""
        return Goal(
            self.samples,
            self.forgotten,
            self.leaving,
            self.answers.to(device),
            self.shift.to(device),
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


def own_answers(logits: Tensor, labels: Tensor, lost: Tensor, config: Config) -> Tensor:
    """(R, C) probabilities: how retain samples are to be answered, given what the original says.

    As the original answers them, without removed classes. What it answers wrongly is set right:
    otherwise each of many runs would pass its mistakes on to the next.

    Args:
        logits: (R, C) of the original. labels: (R,) int64.

    Source:
        Self-distillation as the abstract of arXiv:2407.17710 has it; the rest is our
        reconstruction.
    """
    own = without_classes(logits.softmax(1), lost)
    true = torch.zeros_like(own).scatter_(1, labels[:, None], 1.0)
    wrong = own.argmax(1) != labels
    share = torch.where(wrong, 1.0, config.label_share)[:, None]
    return share * true + (1 - share) * own


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
        answers=answers,
        shift=torch.tensor(shift),
        offsets=theirs[labels] - kept[:, 0].mean(),
        spread=kept.std(0, correction=0).clamp_min(SPREAD),
        space=view.space,
        unseen_losses=_quantiles(
            unseen.losses(), matching_weights(unseen.labels, mine[stays]), 1 - ease[stays]
        ).float(),
    )


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
