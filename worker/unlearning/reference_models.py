"""Reference models: how networks that never saw a sample answer it, and how confidently.

Networks of the same architecture are trained on random halves of the training samples. This module
builds what is kept of them, one network at a time. Shapes: K networks, N samples, C classes.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from worker.unlearning.audit.verdict import scaled_confidence
from worker.unlearning.group_halves import group_halves

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

    scores: Tensor | None = None
    """(N, K) float32, scaled confidence of every network on training samples; None if it was not
    to be kept."""

    holdout_scores: Tensor | None = None
    """(H, K) float32, the same for hold-out samples."""


def halves(
    count: int,
    networks: int,
    generator: torch.Generator,
    groups: Tensor | None = None,
    labels: Tensor | None = None,
) -> Tensor:
    """Which network learns from which sample: (K, N) bool.

    Networks come in pairs: a random half of the samples and the other half, so that exactly K/2
    networks see each sample.

    Args:
        groups: (N,) int64 codes: networks learn from all samples of a group or none.
        labels: (N,) int64, needed with groups: both halves get samples of every class if they can.

    Raises:
        ValueError: K is odd, or below 2; or the groups cannot be halved, see `group_halves`.
    """
    if networks < 2 or networks % 2:
        raise ValueError(f"networks come in pairs; use an even number, 2 or more, not {networks}")
    if groups is not None and labels is not None and len(groups.unique()) < count:  # type: ignore[no-untyped-call]
        return group_halves(groups, labels, networks, generator)
    seen = torch.zeros(networks, count, dtype=torch.bool)
    for pair in range(0, networks, 2):
        chosen = torch.randperm(count, generator=generator)[: count // 2]
        seen[pair, chosen] = True
        seen[pair + 1] = ~seen[pair]
    return seen


class Summary:
    """Running sums over the networks, so memory does not grow with their number; unless single
    scores are kept, 4 bytes for each sample and network.

    Hold-out samples are divided like training samples, although no network saw them, so that the
    statistics of both rest on the same number of networks, drawn the same way, and can be compared.
    """

    def __init__(self, training: int, holdout: int, classes: int, *, kept: int = 0) -> None:
        """For so many samples; of the first `kept` networks the single scores are kept, too."""
        self._predictions = torch.zeros(training, classes)
        self._training, self._holdout = _Sums.empty(training), _Sums.empty(holdout)
        self._scores = [torch.zeros(count, kept) for count in (training, holdout)]

    def add(
        self, first: int, logits: Tensor, labels: Tensor, seen: Tensor, *, network: int = 0
    ) -> None:
        """Add one network's outputs on the training samples from `first` on.

        Args:
            logits: (B, C). labels: (B,) int64.
            seen: (B,) bool, whether the network learned from the sample.
            network: its number, from 0; needed where scores are kept.
        """
        block = slice(first, first + len(labels))
        self._predictions[block] += logits.softmax(1) * ~seen[:, None]
        scores = scaled_confidence(logits, labels)
        self._training.add(block, scores, seen)
        self._scores[0][block, network : network + 1] = scores[:, None].float()

    def add_holdout(
        self, first: int, logits: Tensor, labels: Tensor, seen: Tensor, *, network: int = 0
    ) -> None:
        """The same for hold-out samples; `seen` (B,) divides them."""
        block = slice(first, first + len(labels))
        scores = scaled_confidence(logits, labels)
        self._holdout.add(block, scores, seen)
        self._scores[1][block, network : network + 1] = scores[:, None].float()

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
            scores=self._scores[0] if self._scores[0].shape[1] else None,
            holdout_scores=self._scores[1] if self._scores[1].shape[1] else None,
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
