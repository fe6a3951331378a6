"""Do two groups of samples look alike? Permutation tests with a familywise error rate.

Shapes: N samples of both groups together, S statistics, Q covariates, B permutations. Everything
is float64. Permutations stay within strata (classes), and all statistics share them.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from worker.unlearning.samples import classes

CHUNK = 4_000_000
"""Permuted places held at a time: 32 MB of indices."""


@dataclass(frozen=True, slots=True)
class Significance:
    """Observed statistics, judged among their permutations."""

    deviation: Tensor
    """(S,) standard deviation over the permutations, around the centre."""

    threshold: Tensor
    """(S,) how far from the centre a statistic may lie; the family errs at most at rate alpha."""

    p_value: Tensor
    """(S,) adjusted for the whole family."""


def contrast(mine: Tensor, strata: Tensor, covariates: Tensor) -> Tensor:
    """Weights (N,) whose product with a score tells how much higher the first group scores.

    Without covariates: its mean minus the mean of the others, which are weighted to its mix of
    strata. With covariates: the same at equal covariates, in a linear model. Zero everywhere when
    strata and covariates alone separate the groups, because then no comparison is possible.

    Args:
        mine: (N,) bool, the first group; every stratum has samples of both.
        strata: (N,) int64. covariates: (N, Q), Q may be 0.
    """
    weights = torch.where(mine, 1.0, 0.0).double()
    for stratum in classes(strata):
        here = strata == stratum
        first, others = here & mine, here & ~mine
        weights[others] = -float(first.sum()) / float(others.sum())
    weights = residuals(weights, strata, covariates)
    scale = weights[mine].sum()
    return weights / scale if scale > 1e-6 * mine.sum() else torch.zeros_like(weights)


def residuals(values: Tensor, strata: Tensor, covariates: Tensor) -> Tensor:
    """Residuals of values (N,) float64 after stratum means and a linear fit on the covariates."""
    values, covariates = _centred(values[:, None], strata), _centred(covariates, strata)
    scale = covariates.square().sum(0).sqrt()
    covariates = covariates / scale.clamp_min(torch.finfo(scale.dtype).tiny)
    inverse = torch.linalg.pinv(covariates.T @ covariates, rtol=1e-9, hermitian=True)
    explained: Tensor = covariates @ (inverse @ (covariates.T @ values))
    return (values - explained).squeeze(1)


def ranks(values: Tensor, strata: Tensor) -> Tensor:
    """Rank (N,) of each value within its stratum of n, ties averaged, over n: in (0, 1]."""
    ranked = torch.empty(len(values), dtype=torch.float64)
    for stratum in classes(strata):
        here = strata == stratum
        own = values[here]
        ordered = own.sort().values
        lower = torch.searchsorted(ordered, own)
        not_higher = torch.searchsorted(ordered, own, right=True)
        ranked[here] = (lower + not_higher + 1).double() / 2 / len(own)
    return ranked


def shuffles(strata: Tensor, count: int, generator: torch.Generator) -> Iterator[Tensor]:
    """`count` rows of places (b, N), in chunks; the first row is the identity.

    Every other row shuffles the indices 0..N-1 within strata (N,), all orders equally likely.
    """
    size = max(CHUNK // max(len(strata), 1), 1)
    groups = [(strata == stratum).nonzero().squeeze(1) for stratum in classes(strata)]
    back = torch.cat(groups).argsort() if groups else strata
    for start in range(0, count, size):
        rows = min(size, count - start)
        shuffled = [group[_orders(rows, len(group), generator)] for group in groups]
        places = torch.cat([torch.empty(rows, 0, dtype=torch.int64), *shuffled], 1)[:, back]
        if start == 0:
            places[0] = torch.arange(len(strata))
        yield places


def _orders(rows: int, length: int, generator: torch.Generator) -> Tensor:
    """(rows, length) orders of 0..length-1, drawn at random. NumPy sorts several times as fast."""
    return torch.from_numpy(torch.rand(rows, length, generator=generator).numpy().argsort(1))


def max_t(statistics: Tensor, centre: Tensor, alpha: float) -> Significance:
    """Judge a family by the largest standardised statistic of each permutation.

    The observed order counts as one of the permutations, so that the p-values are valid however
    few there are. A statistic that never changes is never significant.

    Args:
        statistics: (B, S); row 0 is what was observed.
        centre: (S,) what is expected.

    Source:
        Westfall and Young, "Resampling-Based Multiple Testing", 1993, single-step max T.
    """
    away = (statistics - centre).abs()
    deviation = away.square().mean(0).sqrt()
    constant = deviation <= 1e-9
    z = (away / torch.where(constant, 1, deviation)).masked_fill(constant, 0)  # (B, S)
    largest = z.amax(1).sort(descending=True).values  # (B,)
    z_limit = largest[min(int(alpha * len(z)), len(z) - 1)]
    p_value = (largest[:, None] >= z[0] - 1e-9).double().mean(0)
    return Significance(deviation, z_limit * deviation, p_value)


def _centred(values: Tensor, strata: Tensor) -> Tensor:
    """Values (N, Q) minus the mean of their stratum."""
    counts = strata.bincount().double()[:, None]
    sums = values.new_zeros(len(counts), values.shape[1]).index_add_(0, strata, values)
    return values - (sums / counts.clamp_min(1))[strata]
