"""Dimensional alignment: how much of a feature lies in the directions the retain set spans.

Shapes: N samples, d feature dimensions, k leading directions. The metric comes from Seo, Kim, Han,
WACV 2025 (arXiv:2407.17710); the formulas are our reconstruction.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from worker.unlearning.samples import classes

RESAMPLES = 1000
"""Bootstrap resamples behind an interval."""

DRAWN_AT_ONCE = 1_000_000
"""Draws held at a time over all resamples, so memory does not grow with the set."""


@dataclass(frozen=True, slots=True)
class Moments:
    """First and second moments of features, which can be merged and downdated."""

    count: float
    """Number of samples, or the sum of their weights."""

    mean: Tensor
    """(d,) float64."""

    second: Tensor
    """(d, d) float64, mean of the outer products, not centred."""

    @classmethod
    def of(cls, features: Tensor, weights: Tensor | None = None) -> "Moments":
        """Moments of features (N, d), each counted `weights` (N,) times, or once."""
        features = features.detach().double()
        weights = torch.ones(len(features)).to(features) if weights is None else weights.double()
        count = weights.sum()
        scale = (weights / count.clamp_min(torch.finfo(count.dtype).tiny))[:, None]  # (N, 1)
        return cls(count.item(), (scale * features).sum(0), (scale * features).T @ features)

    def merge(self, other: "Moments") -> "Moments":
        """Moments of both sets together."""
        return self._combined(other, sign=1)

    def without(self, features: Tensor) -> "Moments":
        """Moments of what is left after removing the samples with these features (N, d).

        Raises:
            ValueError: nothing would be left.
        """
        if len(features) >= self.count:
            raise ValueError(
                f"cannot take {len(features)} samples out of {self.count:g}; some must be left"
            )
        return self._combined(Moments.of(features), sign=-1) if len(features) else self

    def covariance(self) -> Tensor:
        """(d, d) float64, with divisor N."""
        return self.second - self.mean.outer(self.mean)

    def to_tensors(self) -> dict[str, Tensor]:
        """Plain tensors, ready for safetensors; `from_tensors` reads them back."""
        count = torch.tensor(self.count, dtype=torch.float64)
        return {"count": count, "mean": self.mean, "second": self.second}

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor]) -> "Moments":
        return cls(tensors["count"].item(), tensors["mean"], tensors["second"])

    def _combined(self, other: "Moments", *, sign: int) -> "Moments":
        count = self.count + sign * other.count
        mine, others = self.count / count, sign * other.count / count
        return Moments(
            count,
            mine * self.mean + others * other.mean,
            mine * self.second + others * other.second,
        )


@dataclass(frozen=True, slots=True)
class Eigenspace:
    """The eigenspace of the retain features: around `mean`, along the columns of `basis`."""

    mean: Tensor
    """(d,) float64."""

    basis: Tensor
    """(d, k) float64, orthonormal columns, largest variance first."""

    @property
    def k(self) -> int:
        return self.basis.shape[1]

    def to(self, device: torch.device) -> "Eigenspace":
        """The same on that device: moving it once avoids a wait at every step."""
        return Eigenspace(self.mean.to(device), self.basis.to(device))


def eigenspace(moments: Moments, *, k: int) -> Eigenspace:
    """The k leading eigenvectors of the covariance; k is clipped to 1..d.

    Centred, because the first eigenvector of uncentred features is their mean, in which every
    model is aligned. No gradient: eigh is ill-conditioned when eigenvalues are close.
    """
    directions = torch.linalg.eigh(moments.covariance()).eigenvectors  # ascending
    k = min(max(k, 1), len(moments.mean))
    return Eigenspace(moments.mean, directions[:, -k:].flip(1).contiguous())


def alignment(features: Tensor, space: Eigenspace) -> Tensor:
    """Share of each feature's energy that lies inside the eigenspace: DA per sample.

    DA(h) = |U'(h - mean)|^2 / |h - mean|^2. A feature at the mean has no direction; its DA is 0.

    Args:
        features: (N, d); gradients flow into them, and into nothing else.

    Returns:
        (N,) in [0, 1].

    Source:
        Our reconstruction of the metric of arXiv:2407.17710.
    """
    centred = features - space.mean.to(features)
    inside = (centred @ space.basis.to(features)).square().sum(1)
    whole = centred.square().sum(1)
    return (inside / whole.clamp_min(torch.finfo(whole.dtype).tiny)).clamp(0, 1)


def standing(features: Tensor, space: Eigenspace) -> Tensor:
    """What the audit sees in features apart from the class they indicate: (N, 2).

    DA, and the logarithm of the norm.

    Args:
        features: (N, d); gradients flow into them.
    """
    aligned = alignment(features, space)
    norms = features.to(aligned.dtype).norm(dim=1)
    return torch.stack([aligned, norms.clamp_min(torch.finfo(torch.float32).tiny).log()], 1)


def matching_weights(labels: Tensor, like: Tensor) -> Tensor:
    """Weights (N,), summing to 1, that give `labels` the class mix of `like`.

    Classes of `like` that `labels` lacks are left out; if it lacks them all, every weight is
    equal, so that a comparison is still defined.
    """
    weights = torch.zeros(len(labels), dtype=torch.float64)
    for label in classes(like):
        mine = labels == label
        weights[mine] = (like == label).sum().double() / mine.sum()
    total = weights.sum()
    return weights / total if total > 0 else torch.full_like(weights, 1 / max(len(labels), 1))


@dataclass(frozen=True, slots=True)
class Gap:
    """DA(forget) - DA(hold-out of the same classes), with its 95 % bootstrap interval."""

    value: float
    low: float | None
    """None for fewer than two forget or hold-out samples: one sample has no spread."""

    high: float | None


def alignment_gap(
    forget_da: Tensor,
    forget_labels: Tensor,
    holdout_da: Tensor,
    holdout_labels: Tensor,
    generator: torch.Generator,
) -> Gap:
    """How much better the forget set is aligned than unseen samples of the same class mix.

    Both sides are resampled after subtracting the hold-out's class means, so differences between
    classes do not widen the interval. Below about ten samples a bootstrap interval is too narrow.

    Args:
        forget_da: (F,) per-sample DA. forget_labels: (F,).
        holdout_da: (H,) per-sample DA. holdout_labels: (H,); see `matching_weights` for
            classes they lack.
    """
    weights = matching_weights(holdout_labels, forget_labels)  # (H,)
    excess, residual = forget_da.double(), holdout_da.double()
    value = (excess.mean() - weights @ residual).item()
    chosen = weights > 0
    weights, residual, labels = weights[chosen], residual[chosen], holdout_labels[chosen]
    for label in classes(labels):
        centre = residual[labels == label].mean()
        excess = torch.where(forget_labels == label, excess - centre, excess)
        residual = torch.where(labels == label, residual - centre, residual)
    if min(len(excess), len(residual)) < 2:
        return Gap(value, None, None)
    shift = value - (excess.mean() - weights @ residual)  # non-zero when a class is lacking
    ones = torch.full_like(excess, 1 / len(excess))
    spread = _resampled(excess, ones, generator) - _resampled(residual, weights, generator)
    low, high = (shift + spread).quantile(torch.tensor([0.025, 0.975]).double()).tolist()
    return Gap(value, low, high)


def _resampled(values: Tensor, weights: Tensor, generator: torch.Generator) -> Tensor:
    """Weighted means (RESAMPLES,) of bootstrap resamples of the values (N,)."""
    at_once = max(DRAWN_AT_ONCE // len(values), 1)
    means = []
    for first in range(0, RESAMPLES, at_once):
        shape = (min(at_once, RESAMPLES - first), len(values))
        drawn = torch.randint(len(values), shape, generator=generator)
        share = weights[drawn]
        means.append((share * values[drawn]).sum(1) / share.sum(1))
    return torch.cat(means)


def subspace_overlap(features: Tensor, space: Eigenspace) -> float | None:
    """Mean squared cosine of the principal angles between the features' eigenspace and `space`.

    |Uf'U|^2 / k in [0, 1], with Uf the k leading directions of features (N, d). None when N <= k:
    too few samples to span k directions.

    Source:
        Our reconstruction of "alignment between the eigenspaces", arXiv:2407.17710.
    """
    if len(features) <= space.k:
        return None
    own = eigenspace(Moments.of(features), k=space.k)
    cosines = own.basis.T @ space.basis  # (k, k)
    return (cosines.square().sum() / space.k).item()


def effective_rank(features: Tensor) -> float:
    """How many directions features (N, d) use: exp of the entropy of the eigenvalues' shares.

    From 1 (a line, or a point) to min(N - 1, d). A collapse that games DA shows here.

    Source:
        Roy and Vetterli, "The effective rank", EUSIPCO 2007, on the covariance.
    """
    variances = torch.linalg.eigvalsh(Moments.of(features).covariance()).clamp_min(0)
    shares = variances / variances.sum().clamp_min(torch.finfo(variances.dtype).tiny)
    return float(torch.special.entr(shares).sum().exp())
