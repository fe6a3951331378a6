"""Which samples of an audit belong together: those of one person, account or household."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations, count, product
from math import comb, prod

import torch
from torch import Tensor

from worker.unlearning.audit.permutation import shuffles
from worker.unlearning.samples import classes


@dataclass(frozen=True, slots=True, kw_only=True)
class Groups:
    """A number for the group of every sample; the same number for samples that belong together.

    Raises:
        ValueError: the codes are not int64 vectors, a group stands on both sides, or `in_part` does
            not say the same of all samples of a group.
    """

    forget: Tensor
    """(F,) int64."""

    holdout: Tensor
    """(H,) int64."""

    in_part: Tensor | None = None
    """(F,) bool, whether others of its group stay in training; None where that is true of none.

    A model that never saw such samples may know their group all the same, and nothing here says
    what it would answer. So they are compared with nobody."""

    def __post_init__(self) -> None:
        for name in ("forget", "holdout"):
            codes = getattr(self, name)
            if codes.ndim != 1 or codes.dtype != torch.int64:
                shape = tuple(codes.shape)
                raise ValueError(f"codes of {name} must be (N,) int64, got {shape} {codes.dtype}")
        if both := len(set(self.forget.tolist()) & set(self.holdout.tolist())):
            raise ValueError(
                f"{both} groups are in the forget set and in the hold-out; leave their hold-out "
                "samples out, because they are no samples of people that the model never saw"
            )
        if self.in_part is not None:
            marked, others = self.forget[self.in_part], self.forget[~self.in_part]
            if set(marked.tolist()) & set(others.tolist()):
                raise ValueError("in_part must say the same of all forget samples of a group")

    @property
    def single(self) -> bool:
        """Whether every sample is a group of its own."""
        codes = torch.cat([self.forget, self.holdout])
        return len(set(codes.tolist())) == len(codes)

    @property
    def whole(self) -> Tensor:
        """(F,) bool, the forget samples of whose groups nothing stays in training."""
        kept = self.in_part
        return torch.ones_like(self.forget, dtype=torch.bool) if kept is None else ~kept

    def of_whole(self) -> "Groups":
        """The groups of these samples and of the hold-out."""
        return Groups(forget=self.forget[self.whole], holdout=self.holdout)


@dataclass(frozen=True, slots=True)
class Units:
    """Groups as what is permuted. Shapes: N samples, G groups, S scores, b permutations.

    Groups of like size (within a factor of two) form a stratum. Given its size, a group that the
    model never saw is exchangeable with another, so permutations stay within strata; were a person
    of 150 samples to change places with persons of one, averages of unlike precision would be
    compared. Where a stratum has too few hold-out groups, its groups are thinned, at random, to the
    sizes of the next one: a random part of a group is as exchangeable as the whole.
    """

    members: Tensor
    """(N,) int64, the group of each sample, from 0 without gaps; -1 for what was thinned out."""

    mine: Tensor
    """(G,) bool, the forgotten groups."""

    strata: Tensor
    """(G,) int64."""

    @classmethod
    def of(cls, codes: Tensor, mine: Tensor, alpha: float, generator: torch.Generator) -> "Units":
        """The groups of samples with these codes (N,), of which `mine` (N,) bool are forgotten."""
        members, sizes = numbered(codes)
        forgotten = torch.zeros(len(sizes), dtype=torch.bool)
        forgotten[members[mine]] = True
        strata = sizes.double().log2().floor().long()
        if orders(torch.zeros_like(strata), forgotten) < 1 / alpha:
            return cls(members, forgotten, torch.zeros_like(strata))
        for stratum in range(int(strata.max()), 0, -1):
            here = strata == stratum
            alone = orders(strata, forgotten) < 1 / alpha or bool(forgotten[here].all())
            if alone and orders(strata[here], forgotten[here]) < 1 / alpha:
                strata[here] = stratum - 1
        return cls(_thinned(members, 2 ** (strata + 1) - 1, generator), forgotten, strata)

    @property
    def orders(self) -> int:
        """How many ways there are to say which groups were forgotten."""
        return orders(self.strata, self.mine)

    def shuffles(self, most: int, generator: torch.Generator) -> Iterator[Tensor]:
        """Which groups are taken for forgotten: chunks (b, G) of bool, the first row as it is.

        All the ways there are, once each, if these are at most `most`; else `most` random ones.
        """
        if self.orders <= most:
            yield _every(self.strata, self.mine)
            return
        for places in shuffles(self.strata, most, generator):
            yield self.mine.take(places)

    def means(self, scores: Tensor, labels: Tensor) -> Tensor:
        """How much higher each group scores than all others do in its classes: (G, S).

        Args:
            scores: (N, S) float64, residuals of class means. labels: (N,) int64.
        """
        kept = self.members >= 0
        scores, labels, members = scores[kept], labels[kept], self.members[kept]
        place, counts = numbered(members * (int(labels.max()) + 1) + labels)
        own, counts = _summed(scores, place, len(counts)), counts.double()[:, None]  # of cells
        label, group = labels.new_zeros(len(own)), members.new_zeros(len(own))
        label[place], group[place] = labels, members
        totals, sizes = (_summed(each, label, int(labels.max()) + 1) for each in (own, counts))
        others = sizes[label] - counts
        apart = own - counts * (totals[label] - own) / others.clamp_min(1)
        usable = (others > 0).double()
        summed = _summed(torch.cat([apart, counts], 1) * usable, group, len(self.mine))
        return summed[:, :-1] / summed[:, -1:].clamp_min(1)


def numbered(codes: Tensor) -> tuple[Tensor, Tensor]:
    """The place (N,) of each code (N,) among those that occur, from 0, and how often each does."""
    _, places, counts = codes.unique(  # type: ignore[no-untyped-call]  # torch
        return_inverse=True, return_counts=True
    )
    return places, counts


def orders(strata: Tensor, mine: Tensor) -> int:
    """In how many ways `mine` (G,) may be shuffled within strata (G,)."""
    return prod(
        comb(int(here.sum()), int((here & mine).sum()))
        for here in (strata == stratum for stratum in classes(strata))
    )


def needed(forgotten: int, alpha: float) -> int:
    """The fewest hold-out groups beside which so many forgotten ones can be told apart."""
    return next(n for n in count(1) if comb(forgotten + n, forgotten) >= 1 / alpha)


def _thinned(members: Tensor, limits: Tensor, generator: torch.Generator) -> Tensor:
    """Members (N,), -1 for a random rest of each group that has more than its limit (G,)."""
    order = torch.randperm(len(members), generator=generator)
    order = order[members[order].argsort(stable=True)]
    ordered = members[order]
    starts = ordered.bincount(minlength=len(limits)).cumsum(0)
    rank = torch.arange(len(ordered)) - torch.cat([starts.new_zeros(1), starts[:-1]])[ordered]
    kept = members.clone()
    kept[order[rank >= limits[ordered]]] = -1
    return kept


def _every(strata: Tensor, mine: Tensor) -> Tensor:
    """(b, G) bool: all ways of shuffling `mine` within strata; first as it is."""
    ways = []
    for stratum in classes(strata):
        places = (strata == stratum).nonzero().squeeze(1)
        chosen = places[mine[places]].tolist()
        others = (list(each) for each in combinations(places.tolist(), len(chosen)))
        ways.append([chosen, *(each for each in others if each != chosen)])
    rows = torch.zeros(prod(map(len, ways)), len(mine), dtype=torch.bool)
    for row, picked in zip(rows, product(*ways), strict=True):
        row[[place for each in picked for place in each]] = True
    return rows


def _summed(values: Tensor, places: Tensor, size: int) -> Tensor:
    return values.new_zeros(size, values.shape[1]).index_add_(0, places, values)
