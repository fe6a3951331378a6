"""Random halves of whole groups: a network learns from all of a person or from nothing.

Shapes: K networks, N samples, G groups, C classes.
"""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

DRAWS = 32
"""Draws tried for a pair of networks; the best is taken."""

LARGE = 200
"""Groups larger than the N-th part of all samples are dealt out one by one, the others together."""

FEW = 1000
"""With more groups than that, a draw is tried again only if a class is missing."""

UNEVEN = 0.21
"""Halves that differ by less than this share of all samples, more than the largest group forces
them to, count as equal; else the same groups would be together whenever their sizes match best."""

SLACK = 0.25
"""By up to this share, drawn at random, a half may be larger than half of all samples, or than the
largest group."""

SMALLEST = 0.1
"""The least share of the samples that a half may have."""


def group_halves(
    groups: Tensor, labels: Tensor, networks: int, generator: torch.Generator
) -> Tensor:
    """Which network learns from which sample: (K, N) bool, the same for all samples of a group.

    Networks come in pairs as in `reference_models.halves`. Of DRAWS random divisions of the groups,
    a pair gets the one that leaves the fewest classes to one half alone, though groups of both
    could have had them; then the most equal one; then the one that separates most groups that no
    pair before has separated. A class that only one group has is missing from a half.

    Args:
        groups: (N,) int64 codes.
        labels: (N,) int64.

    Raises:
        ValueError: there is one group only, or one so large that hardly anything is left without
            it.
    """
    _, own, sizes = groups.unique(return_inverse=True, return_counts=True)  # type: ignore[no-untyped-call]
    if len(sizes) < 2:
        raise ValueError("they all belong to one group, so no network could do without it")
    largest = sizes.max().item() / len(groups)
    if largest > 1 - SMALLEST:
        raise ValueError(
            f"one group has {largest:.0%} of them, so a network without it would learn from "
            "hardly anything"
        )
    held = _Held.of(own, labels, sizes)
    together = torch.zeros(len(sizes), dtype=torch.int64)
    seen = torch.zeros(networks, len(groups), dtype=torch.bool)
    for pair in range(0, networks, 2):
        chosen = _best(held, together, generator)  # (G,)
        together = (2 * together + chosen).unique(return_inverse=True)[1]  # type: ignore[no-untyped-call]
        seen[pair] = chosen[own]
        seen[pair + 1] = ~seen[pair]
    return seen


@dataclass(frozen=True, slots=True)
class _Held:
    """What each group has."""

    sizes: Tensor
    """(G,) samples."""

    group: Tensor
    """(P,) for each pair of a group and a class that it has: the group,"""

    label: Tensor
    """(P,) and the class, from 0 without gaps."""

    shared: Tensor
    """(C,) bool, whether two groups or more have the class."""

    @classmethod
    def of(cls, own: Tensor, labels: Tensor, sizes: Tensor) -> Self:
        _, dense = labels.unique(return_inverse=True)  # type: ignore[no-untyped-call]
        group, label = torch.stack([own, dense]).unique(dim=1)  # type: ignore[no-untyped-call]
        return cls(sizes, group, label, label.bincount() > 1)

    def holders(self, chosen: Tensor) -> Tensor:
        """(2, C) groups of each half that have the class; row 1 of the chosen ones."""
        classes = len(self.shared)
        return torch.stack(
            [self.label[chosen[self.group] == side].bincount(minlength=classes) for side in (0, 1)]
        )

    def lacking(self, chosen: Tensor) -> Tensor:
        """(2, C) bool, where a class is missing that both halves could have."""
        return (self.holders(chosen) == 0) & self.shared


def _best(held: _Held, together: Tensor, generator: torch.Generator) -> Tensor:
    """(G,) bool, the best of several draws."""
    best, lowest = torch.empty(0), None
    count = held.sizes.sum().item()
    forced = max(2 * held.sizes.max().item() / count - 1, 0)
    for _ in range(DRAWS):
        chosen = _mended(held, _drawn(held.sizes, generator), generator)
        uneven = abs(2 * (held.sizes * chosen).sum().item() / count - 1) - forced
        missing = int(held.lacking(chosen).sum())
        alike = (2 * together + chosen).unique(return_counts=True)[1]  # type: ignore[no-untyped-call]
        cost = (missing, int(max(uneven, 0) / UNEVEN), int((alike * (alike - 1)).sum()))
        if lowest is None or cost < lowest:
            best, lowest = chosen, cost
        if len(held.sizes) > FEW and not missing:
            break
    return best


def _drawn(sizes: Tensor, generator: torch.Generator) -> Tensor:
    """(G,) bool: a random half, by number of samples; neither it nor the rest is empty.

    Large groups are dealt out first, in random order among those of about the same size: to either
    half, as long as it does not become too large.
    """
    count = int(sizes.sum())
    slack = 1 + SLACK * torch.rand(1, generator=generator).item()
    limit = slack * max(count / 2, int(sizes.max()))
    chosen = torch.zeros(len(sizes), dtype=torch.bool)
    order = torch.randperm(len(sizes), generator=generator)
    order = order[(-sizes[order].log2().floor()).argsort(stable=True)]
    large = order[sizes[order] * LARGE > count]
    coins = torch.randint(2, (len(large),), generator=generator).tolist()
    filled = [0, 0]
    for group, size, coin in zip(large.tolist(), sizes[large].tolist(), coins, strict=True):
        side = coin if filled[coin] + size <= limit else int(filled[1] < filled[0])
        chosen[group] = bool(side)
        filled[side] += size
    small = order[sizes[order] * LARGE <= count]
    small = small[torch.randperm(len(small), generator=generator)]
    wanted = count / 2 - filled[1]
    chosen[small[sizes[small].cumsum(0) - sizes[small] / 2 < wanted]] = True
    if not chosen.any() or chosen.all():
        chosen[order[-1]] = ~chosen[order[-1]]
    return chosen


def _mended(held: _Held, chosen: Tensor, generator: torch.Generator) -> Tensor:
    """The division with groups moved over so that both halves have a class, where that costs the
    other half none."""
    for side, label in held.lacking(chosen).nonzero().tolist():
        holders = held.holders(chosen)
        if holders[side, label]:
            continue
        candidates = held.group[held.label == label]
        candidates = candidates[torch.randperm(len(candidates), generator=generator)]
        for group in candidates[held.sizes[candidates].argsort(stable=True)].tolist():
            classes = held.label[held.group == group]
            if (holders[1 - side, classes] > 1)[held.shared[classes]].all():
                chosen[group] = bool(side)
                break
    return chosen
