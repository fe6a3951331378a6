"""A linear probe: what a simple classifier finds in the features, whatever the head says.

Shapes: N samples, d feature dimensions, C classes, B tables, K cells.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from worker.unlearning.samples import classes

RIDGE = 0.01
"""Weight of the penalty of the audit's probe."""


@dataclass(frozen=True, slots=True)
class Probe:
    """A linear classifier of features."""

    mean: Tensor
    """(d,) float64."""

    scale: Tensor
    """(d,) float64; 0 for a feature that never varies."""

    weights: Tensor
    """(d, C) float64."""

    bias: Tensor
    """(C,) float64."""

    @classmethod
    def fit(
        cls, features: Tensor, labels: Tensor, weights: Tensor, count: int, ridge: float = RIDGE
    ) -> "Probe":
        """Ridge regression of one-hot labels on standardised features, in closed form.

        Args:
            features: (N, d). labels: (N,) int64.
            weights: (N,) how often each sample counts.
            count: number of classes, C.
            ridge: weight of the penalty, in units of the mean square of a standardised feature.
        """
        features, shares = features.double(), (weights.double() / weights.double().sum())[:, None]
        mean = (shares * features).sum(0)
        deviation = (shares * (features - mean).square()).sum(0).sqrt()
        scale = torch.where(deviation > 1e-9 * (1 + mean.abs()), 1 / deviation, 0)
        inputs = (features - mean) * scale
        targets = F.one_hot(labels, count).double()
        bias = (shares * targets).sum(0)
        penalty = ridge * torch.eye(len(mean), dtype=torch.float64)
        gram = inputs.T @ (shares * inputs) + penalty
        return cls(mean, scale, torch.linalg.solve(gram, inputs.T @ (shares * targets)), bias)

    def scores(self, features: Tensor) -> Tensor:
        """(N, C) score of each class, about 0 or 1, for features (N, d)."""
        return ((features.double() - self.mean) * self.scale) @ self.weights + self.bias

    def predict(self, features: Tensor) -> Tensor:
        """(N,) the predicted class of each feature (N, d)."""
        return self.scores(features).argmax(1)


@dataclass(frozen=True, slots=True)
class Cells:
    """The pairs of label and prediction that occur: contingency tables without empty cells."""

    labels: Tensor
    """(K,) int64, from 0 without gaps."""

    predictions: Tensor
    """(K,) int64, as the labels; classes that are only predicted come after them."""

    index: Tensor
    """(N,) int64, the cell of each sample."""

    @classmethod
    def of(cls, labels: Tensor, predictions: Tensor) -> "Cells":
        """The cells of samples with these labels (N,) and predictions (N,)."""
        pairs = list(zip(labels.tolist(), predictions.tolist(), strict=True))
        cells = {pair: place for place, pair in enumerate(dict.fromkeys(pairs))}
        names = (*classes(labels), *classes(predictions))
        number = {name: place for place, name in enumerate(dict.fromkeys(names))}
        return cls(
            torch.tensor([number[label] for label, _ in cells]),
            torch.tensor([number[prediction] for _, prediction in cells]),
            torch.tensor([cells[pair] for pair in pairs]),
        )

    def count(self, weights: Tensor) -> Tensor:
        """Tables (B, K) of samples counted by weights (B, N)."""
        counts = weights.new_zeros(len(weights), len(self.labels))
        return counts.scatter_add_(1, self.index.expand(len(weights), -1), weights)

    def macro_f1(self, tables: Tensor) -> Tensor:
        """(B,) mean F1 score over the labels, for tables (B, K)."""
        labelled, predicted = self._labelled(tables), self._predicted(tables)
        right = _summed(tables * (self.labels == self.predictions), self.labels, labelled.shape[1])
        size = labelled + predicted[:, : labelled.shape[1]]
        return (2 * right / size.clamp_min(torch.finfo(size.dtype).tiny)).mean(1)

    def nmi(self, tables: Tensor) -> Tensor:
        """(B,) mutual information of label and prediction over the mean of their entropies.

        In [0, 1]; 0 when both are constant, because there is no information then.
        """
        total = tables.sum(1, keepdim=True)
        of_label = torch.special.entr(self._labelled(tables) / total).sum(1)
        of_prediction = torch.special.entr(self._predicted(tables) / total).sum(1)
        together = torch.special.entr(tables / total).sum(1)
        mean = (of_label + of_prediction) / 2
        information = (of_label + of_prediction - together).clamp_min(0)
        return torch.where(mean > 1e-12, information / mean.clamp_min(1e-12), 0)

    def _labelled(self, tables: Tensor) -> Tensor:
        return _summed(tables, self.labels, int(self.labels.max()) + 1)

    def _predicted(self, tables: Tensor) -> Tensor:
        highest = max(int(self.labels.max()), int(self.predictions.max()))
        return _summed(tables, self.predictions, highest + 1)


def _summed(tables: Tensor, groups: Tensor, count: int) -> Tensor:
    """Tables (B, K) summed over the cells of each group: (B, count)."""
    sums = tables.new_zeros(len(tables), count)
    return sums.scatter_add_(1, groups.expand(len(tables), -1), tables)
