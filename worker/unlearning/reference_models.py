"""Reference models: how networks that never saw a sample answer it, and how confidently.

Networks of the same architecture are trained on random halves of the training samples. This module
builds what is kept of them, one network at a time. Shapes: K networks, N samples, C classes.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from worker.unlearning.audit.verdict import scaled_confidence

PRIOR = 16
"""The weight of the pooled variance in the variance of a single sample, in number of scores."""


@dataclass(frozen=True, slots=True)
class Side:
    """Scaled confidence of the networks that saw a sample, or of those that did not."""

    mean: Tensor
    """(N,) float64."""

    std: Tensor
    """(N,) float64, positive."""


@dataclass(frozen=True, slots=True)
class Summarised:
    """What is kept of the reference models; see `Summary`."""

    predictions: Tensor
    """(N, C) float32, mean softmax of the networks that did not see the training sample."""

    seen: Side
    """(N,) for training samples, under the networks that saw them."""

    unseen: Side
    """(N,) for training samples, under those that did not."""

    holdout: Side
    """(H,) for hold-out samples, under as many networks; none saw them."""


def halves(count: int, networks: int, generator: torch.Generator) -> Tensor:
    """Which network learns from which sample: (K, N) bool.

    Networks come in pairs: a random half of the samples and the other half, so that exactly K/2
    networks see each sample.

    Raises:
        ValueError: K is odd, or below 2.
    """
    if networks < 2 or networks % 2:
        raise ValueError(f"networks come in pairs; use an even number, 2 or more, not {networks}")
    seen = torch.zeros(networks, count, dtype=torch.bool)
    for pair in range(0, networks, 2):
        chosen = torch.randperm(count, generator=generator)[: count // 2]
        seen[pair, chosen] = True
        seen[pair + 1] = ~seen[pair]
    return seen


class Summary:
    """Running sums over the networks, so memory does not grow with their number.

    Hold-out samples are divided like training samples, although no network saw them, so that the
    statistics of both rest on the same number of networks, drawn the same way, and can be compared.
    """

    def __init__(self, training: int, holdout: int, classes: int) -> None:
        self._predictions = torch.zeros(training, classes)
        self._training, self._holdout = _Sums.empty(training), _Sums.empty(holdout)

    def add(self, first: int, logits: Tensor, labels: Tensor, seen: Tensor) -> None:
        """Add one network's outputs on the training samples from `first` on.

        Args:
            logits: (B, C). labels: (B,) int64.
            seen: (B,) bool, whether the network learned from the sample.
        """
        block = slice(first, first + len(labels))
        self._predictions[block] += logits.softmax(1) * ~seen[:, None]
        self._training.add(block, scaled_confidence(logits, labels), seen)

    def add_holdout(self, first: int, logits: Tensor, labels: Tensor, seen: Tensor) -> None:
        """The same for hold-out samples; `seen` (B,) divides them."""
        block = slice(first, first + len(labels))
        self._holdout.add(block, scaled_confidence(logits, labels), seen)

    def result(self, networks: int) -> Summarised:
        """The summary after `networks` networks, all those of `halves`.

        The standard deviation of a sample is shrunk towards that of all samples, because K/2 scores
        say little about a spread: with n = K/2 scores, their sum of squares S around their mean,
        and the pooled variance V,

            std = sqrt((PRIOR V + S) / (PRIOR + n - 1)).

        V of the networks that did not see a sample is pooled over training and hold-out samples;
        over hold-out samples alone for K = 2, when it also stands for the others.

        Raises:
            ValueError: there are no hold-out samples.

        Source:
            The statistics are those of Carlini et al., 2022, arXiv:2112.03570, section VI, who use
            one variance for all samples when there are few networks; the shrinkage between that and
            a variance for each sample is our reconstruction.
        """
        count = networks // 2
        if self._holdout.sums.shape[1] == 0:
            raise ValueError(
                "without hold-out samples the spread of confidence is unknown; give some"
            )
        scatter, holdout = self._training.scatter(count), self._holdout.together(networks)
        freedom = (count - 1) * scatter.shape[1]
        unseen = (scatter[0].sum() + holdout.sum()) / (freedom + (networks - 1) * len(holdout))
        seen = scatter[1].sum() / freedom if freedom else unseen
        return Summarised(
            self._predictions / count,
            seen=self._training.side(1, count, seen),
            unseen=self._training.side(0, count, unseen),
            holdout=self._holdout.side(0, count, unseen),
        )


@dataclass(frozen=True, slots=True)
class _Sums:
    """Sums of scores and of their squares, (2, N) float64: row 1 of networks that saw a sample."""

    sums: Tensor
    squares: Tensor

    @classmethod
    def empty(cls, count: int) -> "_Sums":
        return cls(*(torch.zeros(2, count, dtype=torch.float64) for _ in range(2)))

    def add(self, block: slice, scores: Tensor, seen: Tensor) -> None:
        sides = torch.stack([~seen, seen])  # (2, B)
        self.sums[:, block] += sides * scores
        self.squares[:, block] += sides * scores.square()

    def scatter(self, count: int) -> Tensor:
        """(2, N) sums of squares around each sample's mean over `count` scores a side."""
        return (self.squares - self.sums.square() / count).clamp_min(0)

    def together(self, networks: int) -> Tensor:
        """(N,) the same over both sides together."""
        return (self.squares.sum(0) - self.sums.sum(0).square() / networks).clamp_min(0)

    def side(self, row: int, count: int, pooled: Tensor) -> Side:
        variance = (PRIOR * pooled + self.scatter(count)[row]) / (PRIOR + count - 1)
        return Side(self.sums[row] / count, variance.clamp_min(_SMALLEST).sqrt())


_SMALLEST = 1e-12
"""The least variance: identical answers of all networks must not cause a division by zero."""
