"""Did it forget, and did it keep the rest? What a network answers, and where its features lie.

Shapes: N samples, d feature dimensions, C classes. Accuracies are fractions in [0, 1].
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from worker.unlearning.alignment import (
    Eigenspace,
    Gap,
    Moments,
    alignment,
    alignment_gap,
    effective_rank,
    eigenspace,
    matching_weights,
    subspace_overlap,
)
from worker.unlearning.audit.advantage import Advantage, advantage
from worker.unlearning.audit.groups import Groups
from worker.unlearning.errors import NotFinite
from worker.unlearning.network import Network
from worker.unlearning.samples import Samples, classes


@dataclass(frozen=True, slots=True)
class Outputs:
    """A network's outputs on some samples, in evaluation mode, on the CPU."""

    features: Tensor
    """(N, d) float32."""

    logits: Tensor
    """(N, C) float32."""

    labels: Tensor
    """(N,) int64."""

    @classmethod
    def of(cls, network: Network, samples: Samples, batch_size: int) -> "Outputs":
        """Run the network over the samples.

        Raises:
            NotFinite: a feature or a logit is NaN or infinite.
        """
        features, logits = network.outputs(samples, batch_size)
        if not (features.isfinite().all() and logits.isfinite().all()):
            raise NotFinite("the model answers with values that are not finite")
        return cls(features, logits, samples.labels)

    def select(self, mask: Tensor) -> "Outputs":
        """The outputs where `mask` (N,) is true."""
        return Outputs(self.features[mask], self.logits[mask], self.labels[mask])

    def joined(self, other: "Outputs") -> "Outputs":
        """These outputs, followed by the others."""
        return Outputs(
            torch.cat([self.features, other.features]),
            torch.cat([self.logits, other.logits]),
            torch.cat([self.labels, other.labels]),
        )

    def losses(self) -> Tensor:
        """(N,) cross-entropy in nats; float64, so that confident answers do not tie."""
        return F.cross_entropy(self.logits.double(), self.labels, reduction="none")


NOTHING_KNOWN: Mapping[str, Outputs] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class FineTuned:
    """What became of membership in a copy that was trained further on retain samples."""

    steps: int
    samples: int
    """How many different retain samples were used at most."""

    membership_auc_before: float | None
    membership_auc_after: float | None
    """None when the copy could not be trained, or the hold-out lacks all classes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """One network, measured. A field is None when there are no samples to measure it on."""

    forget_accuracy: float
    retain_accuracy: float
    """Accuracy on the reservoir, weighted to the class mix of the whole retain set."""

    holdout_accuracy: float | None
    """Accuracy on hold-out samples of retained classes only: a removed class should not be kept."""

    test_accuracy: float | None
    """Accuracy on test samples of retained classes only."""

    holdout_accuracy_same_classes: float | None
    """Accuracy on the hold-out in the forget set's class mix: what forget accuracy should be."""

    da_forget: float
    da_holdout: float | None
    """Mean DA of the hold-out in the class mix of the forget set."""

    da_gap: float | None
    da_gap_low: float | None
    da_gap_high: float | None
    k: int
    subspace_overlap: float | None
    """None when there are at most k forget samples."""

    forget_effective_rank: float
    forget_feature_norm: float
    """Mean Euclidean norm of the features."""

    holdout_feature_norm: float | None
    membership_auc: float | None
    """Chance that a forget sample has a lower loss than a hold-out sample of the same class
    mix; 0.5 means indistinguishable. None when the hold-out lacks all these classes."""

    advantage: Advantage
    """The share of right guesses about who was forgotten that the data do not exclude."""

    every_class: "EveryClass"
    """Accuracy on test samples of all classes, those without any retain sample included."""

    lost_classes: list[int]
    """Classes of the forget set of which no retain sample is left."""

    fine_tuned: FineTuned | None = None
    """None where that was not asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EveryClass:
    """Accuracy over all C classes, and of each of them, on samples that were never trained on."""

    measured_on: Literal["test", "holdout"]
    """The hold-out stands in where there are no test samples."""

    samples: list[int]
    """(C,) how many were measured."""

    right: list[int]
    """(C,) how many of them were answered correctly."""

    @property
    def accuracy(self) -> float | None:
        """Over all classes; None without samples."""
        return sum(self.right) / sum(self.samples) if any(self.samples) else None

    @classmethod
    def of(cls, observed: "Observed", count: int) -> "EveryClass":
        """Of a network with `count` classes."""
        shown = observed.test if observed.test is not None else observed.holdout
        labels = shown.labels
        right = labels[shown.logits.argmax(1) == labels]
        return cls(
            measured_on="holdout" if observed.test is None else "test",
            samples=labels.bincount(minlength=count).tolist(),
            right=right.bincount(minlength=count).tolist(),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """One network's outputs on each set."""

    forget: Outputs
    retain: Outputs
    """Outputs on a class-balanced reservoir of the retain set."""

    holdout: Outputs
    """Outputs on samples that were never trained on; there may be none."""

    test: Outputs | None

    @classmethod
    def of(
        cls,
        network: Network,
        *,
        forget: Samples,
        retain: Samples,
        holdout: Samples,
        test: Samples | None,
        batch_size: int = 500,
        known: Mapping[str, Outputs] = NOTHING_KNOWN,
    ) -> "Observed":
        """Run the network over all sets.

        Args:
            known: its outputs on some of them, by name, which need not be made again.

        Raises:
            NotFinite: a feature or a logit is NaN or infinite.
            ValueError: the forget set or the reservoir is empty.
        """
        require_samples(forget=forget, retain=retain)
        mine = Outputs.of(network, forget, batch_size)
        none = mine.select(torch.zeros_like(mine.labels, dtype=torch.bool))

        def shown(name: str, samples: Samples) -> Outputs:
            return known[name] if name in known else Outputs.of(network, samples, batch_size)

        return cls(
            forget=mine,
            retain=shown("retain", retain),
            holdout=shown("holdout", holdout) if len(holdout) else none,
            test=shown("test", test) if test is not None else None,
        )


def evaluate(
    observed: Observed,
    *,
    class_counts: Tensor,
    k: int | None = None,
    moments: Moments | None = None,
    groups: Groups | None = None,
    seed: int = 0,
) -> Evaluation:
    """Measure a network by its outputs on the forget set and on what must stay.

    Args:
        class_counts: (C,) number of retain samples per class.
        k: directions of the eigenspace; the number of retained classes - 1 by default.
        moments: moments of this network's retain features; estimated from the reservoir when not
            given.
        groups: which forget and hold-out samples belong together; without them, each is its own.
    """
    mine, kept, unseen = observed.forget, observed.retain, observed.holdout
    tested = _of_retained(observed.test, class_counts) if observed.test else None
    moments = retain_moments(kept, class_counts) if moments is None else moments
    space = eigenspace(moments, k=default_k(class_counts) if k is None else k)
    da_forget, da_holdout, gap = measured_gap(mine, unseen, space, seed)
    there = len(unseen.labels) > 0
    alike = matching_weights(unseen.labels, mine.labels).float()
    same = torch.isin(unseen.labels, mine.labels)
    return Evaluation(
        forget_accuracy=accuracy(mine) or 0.0,
        retain_accuracy=accuracy(kept, retain_weights(kept.labels, class_counts)) or 0.0,
        holdout_accuracy=accuracy(_of_retained(unseen, class_counts)),
        test_accuracy=accuracy(tested) if tested else None,
        holdout_accuracy_same_classes=accuracy(unseen, alike * same),
        da_forget=da_forget,
        da_holdout=da_holdout if there else None,
        da_gap=gap.value if there else None,
        da_gap_low=gap.low,
        da_gap_high=gap.high,
        k=space.k,
        subspace_overlap=subspace_overlap(mine.features, space),
        forget_effective_rank=effective_rank(mine.features),
        forget_feature_norm=mine.features.norm(dim=1).mean().item(),
        holdout_feature_norm=((alike @ unseen.features.norm(dim=1)).item() if there else None),
        membership_auc=membership_auc(mine, unseen),
        advantage=advantage(
            mine.losses(), mine.labels, unseen.losses(), unseen.labels, groups=groups, seed=seed
        ),
        every_class=EveryClass.of(observed, len(class_counts)),
        lost_classes=[label for label in classes(mine.labels) if class_counts[label] == 0],
    )


def accuracy(outputs: Outputs, weights: Tensor | None = None) -> float | None:
    """Share of correct answers, weighted by (N,); None when the weights sum to 0."""
    weights = torch.ones(len(outputs.labels)) if weights is None else weights
    weights = weights.double()
    if weights.sum() == 0:
        return None
    right = outputs.logits.argmax(1) == outputs.labels
    return ((right * weights).sum() / weights.sum()).item()


def membership_auc(forget: Outputs, holdout: Outputs) -> float | None:
    """Chance that a forget sample has a lower loss than a hold-out sample; ties count half.

    The hold-out is weighted to the class mix of the forget set. None when it lacks all of
    the forget set's classes.
    """
    weights = matching_weights(holdout.labels, forget.labels)
    weights = weights * torch.isin(holdout.labels, forget.labels)
    if weights.sum() == 0:
        return None
    unseen, order = holdout.losses().sort()
    below = F.pad((weights / weights.sum())[order].cumsum(0), (1, 0))  # (H + 1,)
    losses = forget.losses()
    lower = below[torch.searchsorted(unseen, losses)]
    not_higher = below[torch.searchsorted(unseen, losses, right=True)]
    return (1 - (lower + not_higher) / 2).mean().item()


def measured_gap(
    forget: Outputs, holdout: Outputs, space: Eigenspace, seed: int
) -> tuple[float, float, Gap]:
    """Mean DA of the forget set, of the hold-out in its class mix, and the gap between them."""
    mine, unseen = alignment(forget.features, space), alignment(holdout.features, space)
    weights = matching_weights(holdout.labels, forget.labels)
    generator = torch.Generator().manual_seed(seed)
    gap = alignment_gap(mine, forget.labels, unseen, holdout.labels, generator)
    return mine.mean().item(), (weights @ unseen.double()).item(), gap


def retain_weights(labels: Tensor, class_counts: Tensor) -> Tensor:
    """How many retain samples each reservoir sample (N,) stands for."""
    present = labels.bincount(minlength=len(class_counts))
    return class_counts[labels] / present[labels]


def retain_moments(reservoir: Outputs, class_counts: Tensor) -> Moments:
    """Moments of the whole retain set's features, estimated from a class-balanced reservoir."""
    return Moments.of(reservoir.features, retain_weights(reservoir.labels, class_counts))


def default_k(class_counts: Tensor) -> int:
    """Number of retained classes - 1, at least 1: class means differ in as many directions."""
    return max(int((class_counts > 0).sum()) - 1, 1)


def require_samples(**sets: Samples) -> None:
    """Raise ValueError, naming the set, if one of them is empty."""
    for name, samples in sets.items():
        if len(samples) == 0:
            raise ValueError(f"the {name} set is empty; give at least one sample")


def _of_retained(outputs: Outputs, class_counts: Tensor) -> Outputs:
    return outputs.select(class_counts[outputs.labels] > 0)
