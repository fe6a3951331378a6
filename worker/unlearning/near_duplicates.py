"""Samples that are nearly the same: bursts of photos, overlapping windows, a text sent twice.

A network's layers are the measure of likeness: what enters each of them is summarised in a few
numbers, and two samples are alike when they are near each other in all layers together, the first
of which sees the input itself. So it does not matter if the last ones have drawn all samples of a
class together. Shapes: N samples, D numbers of a sample, B samples of a block.

Source:
    False discovery rate: Benjamini and Hochberg, "Controlling the False Discovery Rate", 1995. The
    distribution of distances that it is applied to is our reconstruction.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

import torch
from torch import Tensor

WIDTH = 16
"""Numbers kept of each layer: random projections, which keep distances to a tenth or two."""

LAYERS = 5
"""Layers looked at, evenly spaced from the first to the last."""

FALSE = 0.1
"""The share of samples with a near-duplicate that may have it by chance, as far as the distances of
independent samples follow the distribution in `search`."""

NEAR, FAR = 1 / 16, 1 / 4
"""The shares of its class nearest to a sample whose distances tell how dense the class is around
it. Much larger groups than the first are taken for the class itself."""

REFERENCES = 500
"""Samples of a block, drawn at random, from which that is estimated."""

NEIGHBOURS = 16
"""Candidates of each sample: larger groups hang together by their members."""

ENOUGH = 100
"""Samples of a class. Smaller classes borrow from each other how far apart samples are."""

DRAWN_TOGETHER = 0.1
"""A layer where classes differ so much that no more of its variance is left within them says too
little of single samples, and is not looked at; unless all do, when the first one is."""

CELL = 20_000
"""Samples that are compared with each other. Larger classes are cut in two, and in two again, so
that the time grows with the number of samples and not with its square; pairs that a cut separates
are not found."""

ROWS = 1024
"""Samples whose distances to all of a cell are in memory."""

SAME = 0.01
"""Of the class's spread: nearer is the same, as far as one can compute."""


@dataclass(slots=True)
class Likeness:
    """What a network's layers say of samples, added batch by batch."""

    _parts: list[Tensor] = field(default_factory=list)
    _labels: list[Tensor] = field(default_factory=list)
    _projections: dict[str, Tensor] = field(default_factory=dict)

    def add(self, layers: Mapping[str, Tensor], labels: Tensor) -> int:
        """Add samples; the bytes that they take.

        Args:
            layers: what enters each layer, (N, d), by name; the same names each time.
            labels: (N,) int64.

        Raises:
            ValueError: the layers are other ones than before.
        """
        if not self._projections:
            self._projections = {
                name: _projection(n, v) for n, (name, v) in enumerate(layers.items())
            }
        if self._projections.keys() != layers.keys():
            raise ValueError("the layers that a network reaches must be the same for all samples")
        parts = [layers[name].float() @ matrix for name, matrix in self._projections.items()]
        self._parts.append(torch.cat(parts, 1).nan_to_num())
        self._labels.append(labels)
        return self._parts[-1].nbytes

    def found(self, device: torch.device | None = None) -> "Found":
        """The near-duplicates among all samples added, in the order in which they were."""
        widths = [matrix.shape[1] for matrix in self._projections.values()]
        if not self._parts:
            return Found(torch.empty(0, dtype=torch.int64), 0, 0)
        return search(torch.cat(self._parts), widths, torch.cat(self._labels), device=device)


def _projection(number: int, entered: Tensor) -> Tensor:
    """(d, at most WIDTH); the same for the same layer of the same network."""
    dimensions = entered.shape[1]
    if dimensions <= WIDTH:
        return torch.eye(dimensions)
    generator = torch.Generator().manual_seed(number)
    return torch.randn(dimensions, WIDTH, generator=generator).div(WIDTH**0.5)


@dataclass(frozen=True, slots=True)
class Found:
    """Which samples are near-duplicates of each other."""

    numbers: Tensor
    """(N,) int64: the group of each sample, from 0; -1 for a sample that is like no other."""

    not_searched: int
    """Samples of classes so small that nothing is known of their spread."""

    not_counted: int
    """Samples with an identical one in a class where most have: such data has few values, and being
    equal says nothing."""


def search(
    points: Tensor,
    widths: Sequence[int],
    labels: Tensor,
    *,
    device: torch.device | None = None,
) -> Found:
    """Group the samples that are nearer to each other than independent ones would be.

    Compared are samples of the same label, after the class's mean was taken out and every layer's
    spread made equal. Squared distances from a sample to independent ones of its class are taken to
    follow a chi-squared distribution, whose degrees of freedom and scale are such that NEAR and FAR
    of the class are as near as they are; the degrees are averaged with the class's median
    (harmonically). Its lower tail says how many independent samples would be expected as near as a
    candidate is; of the two numbers that a pair has, the larger one counts. The pairs that are
    accepted are those of the Benjamini-Hochberg procedure at FALSE, over each sample's nearest
    neighbour. Groups are what such pairs connect.

    Args:
        points: (N, D) float32; the layers side by side, with these `widths`.
        labels: (N,) int64.
        device: where to compute.
    """
    points, widths = _telling(points, widths, labels)
    edges: list[Tensor] = []
    not_searched = not_counted = 0
    for rows in _blocks(labels):
        if len(rows) < ENOUGH:
            not_searched += len(rows)
            continue
        alike = _standardised(points[rows].to(device or points.device), widths, labels[rows])
        for cell in _cells(alike):
            pairs, ignored = _pairs(alike[cell])
            chosen = rows[cell.cpu()[pairs]]  # (2, E)
            edges.append(chosen[:, labels[chosen[0]] == labels[chosen[1]]])
            not_counted += ignored
    joined = torch.cat(edges, 1) if edges else torch.empty(2, 0, dtype=torch.int64)
    return Found(components(len(labels), joined), not_searched, not_counted)


def _blocks(labels: Tensor) -> Iterator[Tensor]:
    """Rows of each class that is large enough, and of all others together."""
    counts = labels.bincount()
    for label in (counts >= ENOUGH).nonzero().squeeze(1):
        yield (labels == label).nonzero().squeeze(1)
    rest = (counts[labels] < ENOUGH).nonzero().squeeze(1)
    if len(rest):
        yield rest


def _telling(points: Tensor, widths: Sequence[int], labels: Tensor) -> tuple[Tensor, Sequence[int]]:
    """The layers that have not drawn the samples of a class together, and their widths."""
    if not len(points):
        return points, widths
    within = _deviations(points, labels).square().sum(0)
    whole = (points - points.mean(0)).square().sum(0)
    layers = torch.split(points, list(widths), dim=1)
    telling = [
        number
        for number, (left, all_) in enumerate(
            zip(torch.split(within, list(widths)), torch.split(whole, list(widths)), strict=True)
        )
        if left.sum() > DRAWN_TOGETHER * all_.sum()
    ] or [0]
    if len(telling) == len(layers):
        return points, widths
    return torch.cat([layers[each] for each in telling], 1), [widths[each] for each in telling]


def _standardised(points: Tensor, widths: Sequence[int], labels: Tensor) -> Tensor:
    """(B, D) deviations from the class's mean, with a mean square of 1 in every layer."""
    layers = [
        layer / layer.square().sum(1).mean().sqrt().clamp_min(torch.finfo(layer.dtype).tiny)
        for layer in torch.split(_deviations(points, labels), list(widths), dim=1)
    ]
    return torch.cat(layers, 1)


def _deviations(points: Tensor, labels: Tensor) -> Tensor:
    """(B, D) from the class's mean."""
    _, own = labels.to(points.device).unique(return_inverse=True)  # type: ignore[no-untyped-call]
    sums = torch.zeros(int(own.max()) + 1, points.shape[1], device=points.device)
    means: Tensor = sums.index_add_(0, own, points) / own.bincount()[:, None]
    return points - means[own]


def _cells(points: Tensor) -> Iterator[Tensor]:
    """Rows of parts of at most CELL samples, cut where a part is widest."""
    waiting = [torch.arange(len(points), device=points.device)]
    while waiting:
        rows = waiting.pop()
        if len(rows) <= CELL:
            yield rows
            continue
        part = points[rows]
        some = part[:: max(len(part) // CELL, 1)]
        _, _, axes = torch.linalg.svd(some - some.mean(0), full_matrices=False)
        order = (part @ axes[0]).argsort()
        waiting += [rows[half] for half in order.chunk(2)]


def _pairs(points: Tensor) -> tuple[Tensor, int]:
    """Pairs (2, E) of near-duplicates, on the CPU, and how many samples have an identical one that
    does not count."""
    count = len(points)
    if count < ENOUGH:
        return torch.empty(2, 0, dtype=torch.int64), 0
    half, scale = _surroundings(points)
    nearest = [_nearest(points, first) for first in range(0, count, ROWS)]
    distance = torch.cat([near for near, _ in nearest]).double()  # (B, NEIGHBOURS)
    other = torch.cat([index for _, index in nearest])
    twins = distance.square() <= SAME**2 * scale[:, None]
    ignored = 0
    if twins.any(1).float().mean() > 0.5:
        ignored = int(twins.any(1).sum())
    else:
        twins = torch.zeros_like(twins)

    def expected(half: Tensor, scale: Tensor) -> Tensor:
        """How many independent samples are as near; NaN where nothing can be said."""
        half = half.expand_as(distance).contiguous()
        tail: Tensor = torch.special.gammainc(half, distance.square() / scale)
        return count * tail

    by_chance = torch.maximum(
        expected(half[:, None], scale[:, None]), expected(half[other], scale[other])
    ).masked_fill(twins, torch.inf)
    by_chance = by_chance.nan_to_num(nan=torch.inf, posinf=torch.inf)
    ranked = by_chance.min(1).values.sort().values
    allowed = FALSE * torch.arange(1, count + 1, device=points.device) / count
    accepted = allowed[ranked <= allowed]
    near = by_chance <= (accepted[-1] if len(accepted) else -1)
    left = torch.arange(count, device=points.device)[:, None].expand_as(other)
    return torch.stack([left[near], other[near]]).cpu(), ignored


def _surroundings(points: Tensor) -> tuple[Tensor, Tensor]:
    """Half the degrees of freedom (B,) of the squared distances from each sample, and twice their
    scale (B,)."""
    generator = torch.Generator().manual_seed(0)
    chosen = torch.randperm(len(points), generator=generator)[:REFERENCES].to(points.device)
    places = [round(NEAR * len(chosen)), round(FAR * len(chosen))]
    distances = torch.cat(
        [
            torch.cdist(points[first : first + ROWS], points[chosen]).sort(1).values[:, places]
            for first in range(0, len(points), ROWS)
        ]
    ).double()
    near, far = distances.clamp_min(torch.finfo(torch.float32).tiny).unbind(1)
    halves, ratios, quantiles = (each.to(points.device) for each in _table())

    def found(values: Tensor, in_: Tensor) -> Tensor:
        return torch.searchsorted(in_, values.contiguous()).clamp_max(len(in_) - 1)

    own = halves[found(2 * (near / far).log(), ratios)]
    half = 2 / (1 / own + 1 / own.median())
    return half, far.square() / quantiles[found(half, halves)]


@cache
def _table() -> tuple[Tensor, Tensor, Tensor]:
    """For half degrees of freedom from 1/4 to 400, ascending: these, the logarithm of the ratio of
    the quantiles NEAR and FAR, and the latter, of a gamma distribution with scale 1."""
    halves = torch.logspace(-0.6, 2.6, 400, dtype=torch.float64)

    def quantile(share: float) -> Tensor:
        low, high = torch.zeros_like(halves), 20 * halves + 20
        for _ in range(100):
            middle = (low + high) / 2
            below = torch.special.gammainc(halves, middle) < share
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return high

    near, far = quantile(NEAR), quantile(FAR)
    return halves, (near / far).log(), far


def _nearest(points: Tensor, first: int) -> tuple[Tensor, Tensor]:
    """Distances and rows of the nearest others of ROWS samples from `first` on."""
    some = points[first : first + ROWS]
    apart = torch.cdist(some, points)
    apart[torch.arange(len(some)), torch.arange(first, first + len(some))] = torch.inf
    indices = apart.topk(NEIGHBOURS, largest=False).indices
    exact = (some[:, None] - points[indices]).norm(dim=2)  # `cdist` rounds small distances
    return exact, indices


def components(count: int, edges: Tensor) -> Tensor:
    """(N,) the number of the connected part each sample is in; -1 for a sample without edges."""
    lowest = torch.arange(count)
    while True:
        low = torch.minimum(lowest[edges[0]], lowest[edges[1]])
        joined = lowest.clone()
        for end in edges:
            joined.scatter_reduce_(0, end, low, "amin")
        joined = joined[joined]
        if torch.equal(joined, lowest):
            break
        lowest = joined
    numbers = torch.full((count,), -1)
    within = torch.zeros(count, dtype=torch.bool)
    within[edges.flatten()] = True
    numbers[within] = lowest[within].unique(return_inverse=True)[1]  # type: ignore[no-untyped-call]
    return numbers
