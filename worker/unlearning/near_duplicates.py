"""Samples that are nearly the same: bursts of photos, overlapping windows, a text sent twice.

A network's layers are the measure of likeness: what enters each of them is summarised in a few
numbers, and two samples are alike when they are near each other in all layers together, the first
of which sees the input itself. So it does not matter if the last ones have drawn all samples of a
class together. Shapes: N samples, D numbers of a sample, B samples of a block.

Source:
    Density of neighbours at a distance: the maximum-likelihood dimension of Levina and Bickel,
    "Maximum Likelihood Estimation of Intrinsic Dimension", 2004. Taking it as the null of a test
    for near-duplicates is our reconstruction.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import log10

import torch
from torch import Tensor

WIDTH = 16
"""Numbers kept of each layer: random projections, which keep distances to a tenth or two."""

LAYERS = 5
"""Layers looked at, evenly spaced from the first to the last."""

CHANCE = 1e-6
"""How many samples of its class, were they independent, would be expected as near to a sample as
its near-duplicate is, at most."""

SHARE = 0.25
"""The nearest so many samples of a class tell how dense it is around a sample. A group may be half
as large before it is taken for the class itself."""

REFERENCES = 500
"""Samples of a block, drawn at random, from which that is estimated."""

NEIGHBOURS = 16
"""Candidates of each sample: larger groups hang together by their members."""

ENOUGH = 100
"""Samples of a class. Smaller classes borrow from each other how far apart samples are."""

CELL = 20_000
"""Samples that are compared with each other. Larger classes are cut in two, and in two again, so
that the time grows with the number of samples and not with its square; pairs that a cut separates
are not found."""

ROWS = 1024
"""Samples whose distances to all of a cell are in memory."""

SAME = 0.01
"""Of the distance to the class: nearer is the same, as far as one can compute."""


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
            self._projections = {name: _projection(n, v) for n, (name, v) in enumerate(layers.items())}
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
    return torch.randn(dimensions, WIDTH, generator=generator) / WIDTH**0.5


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
    spread made equal. Around a sample, the number of samples within a distance r of it grows like
    r^m. The quarter of its class that is nearest to it tells m and that density; m is averaged
    with the class's median (harmonically). Extrapolated to the small distance of the candidate,
    they say how many independent samples would be expected there. A pair counts if that is
    at most CHANCE seen from both. Groups are what such pairs connect.

    Args:
        points: (N, D) float32; the layers side by side, with these `widths`.
        labels: (N,) int64.
        device: where to compute.
    """
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
    return Found(_components(len(labels), joined), not_searched, not_counted)


def _blocks(labels: Tensor) -> Iterator[Tensor]:
    """Rows of each class that is large enough, and of all others together."""
    counts = labels.bincount()
    for label in (counts >= ENOUGH).nonzero().squeeze(1):
        yield (labels == label).nonzero().squeeze(1)
    rest = (counts[labels] < ENOUGH).nonzero().squeeze(1)
    if len(rest):
        yield rest


def _standardised(points: Tensor, widths: Sequence[int], labels: Tensor) -> Tensor:
    """(B, D) deviations from the class's mean, with a mean square of 1 in every layer."""
    _, own = labels.to(points.device).unique(return_inverse=True)  # type: ignore[no-untyped-call]
    sums = points.new_zeros(int(own.max()) + 1, points.shape[1]).index_add_(0, own, points)
    deviations = points - (sums / own.bincount()[:, None])[own]
    layers = [
        layer / layer.square().sum(1).mean().sqrt().clamp_min(torch.finfo(layer.dtype).tiny)
        for layer in deviations.split(list(widths), dim=1)
    ]
    return torch.cat(layers, 1)


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
    reach, exponent = _surroundings(points)
    nearest = [_nearest(points, first) for first in range(0, count, ROWS)]
    distance = torch.cat([near for near, _ in nearest])  # (B, NEIGHBOURS)
    other = torch.cat([index for _, index in nearest])
    twins = distance <= SAME * reach[:, None]
    ignored = 0
    if twins[:, 0].float().mean() > 0.5:
        ignored = int(twins[:, 0].sum())
    else:
        twins = torch.zeros_like(twins)

    def expected(reach: Tensor, exponent: Tensor) -> Tensor:
        """log10 of how many independent samples are as near; NaN where nothing can be said."""
        ratio = (distance / reach).clamp_min(SAME**2)
        return log10(SHARE * count) + exponent * ratio.log10()

    mine = expected(reach[:, None], exponent[:, None])
    theirs = expected(reach[other], exponent[other])
    near = (mine <= log10(CHANCE)) & (theirs <= log10(CHANCE)) & ~twins
    left = torch.arange(count, device=points.device)[:, None].expand_as(other)
    return torch.stack([left[near], other[near]]).cpu(), ignored


def _surroundings(points: Tensor) -> tuple[Tensor, Tensor]:
    """The distance (B,) within which a quarter of the samples are, and the exponent m (B,) with
    which their number grows up to there."""
    generator = torch.Generator().manual_seed(0)
    chosen = torch.randperm(len(points), generator=generator)[:REFERENCES].to(points.device)
    last = round(SHARE * len(chosen))
    first = last // 2
    reach, inverse = [], []
    for start in range(0, len(points), ROWS):
        far = torch.cdist(points[start : start + ROWS], points[chosen]).sort(1).values
        reach.append(far[:, last])
        inverse.append((far[:, last, None] / far[:, first:last]).log().mean(1))
    own = torch.cat(inverse)
    return torch.cat(reach), 2 / (own + own.median())


def _nearest(points: Tensor, first: int) -> tuple[Tensor, Tensor]:
    """Distances and rows of the nearest others of ROWS samples from `first` on."""
    some = points[first : first + ROWS]
    apart = torch.cdist(some, points)
    apart[torch.arange(len(some)), torch.arange(first, first + len(some))] = torch.inf
    found = apart.topk(NEIGHBOURS, largest=False)
    return found.values, found.indices


def _components(count: int, edges: Tensor) -> Tensor:
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
