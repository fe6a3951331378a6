"""How well could somebody still tell what was forgotten? An upper bound, whatever the verdict.

The attacker plays a game with even odds. He is shown one forgotten sample and one of the same class
that the model never saw, of different people, and says that the one with the lower loss is the
forgotten one; or the one with the higher loss, if that is right more often. One half is chance. By
this rule somebody who sees one sample at a time, and compares its loss with a threshold of its
class, guesses no better as long as a lower loss always speaks for the same side (a concave ROC
curve): his share is (1 + largest vertical distance) / 2, and the area under such a curve is at
least that. Nothing is said of attackers who know more than the loss and the class.

Shapes: F forget samples, H hold-out samples, n pairs.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from worker.unlearning.audit.groups import Groups
from worker.unlearning.samples import classes

CONFIDENCE = 0.95

STEPS, MATCHINGS = 50_000, 100
"""Samples gone through when groups are matched, and the most times that this is done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Advantage:
    """The largest share of right guesses that the data do not exclude."""

    bound: float
    """In [0.5, 1]: the attacker's true share is above it with a chance of at most 5 %."""

    observed: float | None
    """The share of right guesses of who takes the lower loss, on these samples; None without a pair
    of the same class. Where each sample is on its own, a membership AUC within classes."""

    pairs: int
    """How many pairs of different people can be made at a time: what the bound rests on."""

    forgotten: int
    """How many groups, or samples on their own, were forgotten."""

    grouped: bool
    """Whether samples are counted by group."""

    in_part: int = 0
    """How many samples are left out, because others of their groups stay in training: the model may
    know the groups by those, so that nothing follows from telling them from unseen ones."""

    confidence: float = CONFIDENCE


def advantage(
    losses: Tensor,
    labels: Tensor,
    holdout_losses: Tensor,
    holdout_labels: Tensor,
    *,
    groups: Groups | None = None,
    seed: int = 0,
) -> Advantage:
    """The upper bound (one-sided, 95 %) on the share of right guesses.

    What is counted are pairs that have nobody in common: of each group one sample, and each group
    once. Their outcomes are independent whatever goes on within groups, and the figure is a mean
    over many ways to make such pairs, which is no more spread than a single way. So the bound holds
    with any number of groups; one group, or one sample, excludes nothing, and gives 1.
    It is wider than it need be, by about a quarter for a hundred pairs.

    The attacker may choose his side with hindsight: a share of a half plus a or minus a is the same
    to him. The bound is the larger of the two one-sided ones, as in a test of equivalence.

    Args:
        losses: (F,) in nats. labels: (F,) int64.
        holdout_losses, holdout_labels: (H,) the same of samples that the model never saw.
        groups: which samples belong together; without them, each is its own.

    Source:
        A mean over all pairs as a mean over matchings: Hoeffding, 1963, section 5; the bound: the
        smaller of his and that of Bentkus, 2004, in the form of Bates et al., "Distribution-Free,
        Risk-Controlling Prediction Sets", 2021, arXiv:2101.02703. Two one-sided tests: Schuirmann,
        1987. Using them for groups is our reconstruction.
    """
    left_out = 0
    if groups is not None:
        whole = groups.whole
        losses, labels, groups = losses[whole], labels[whole], groups.of_whole()
        left_out = int((~whole).sum())
    forgotten = len(labels)
    if groups is None or groups.single:
        share, pairs = _of_samples(losses, labels, holdout_losses, holdout_labels)
    else:
        forgotten = len(set(groups.forget.tolist()))
        share, pairs = _of_groups(losses, labels, holdout_losses, holdout_labels, groups, seed)
    return Advantage(
        bound=max(upper_bound(share, pairs), upper_bound(1 - share, pairs), 0.5) if pairs else 1.0,
        observed=share if pairs else None,
        pairs=pairs,
        forgotten=forgotten,
        grouped=groups is not None and not groups.single,
        in_part=left_out,
    )


def upper_bound(share: float, pairs: int, alpha: float = 1 - CONFIDENCE) -> float:
    """The largest chance of success that a share of successes does not exclude.

    Args:
        share: in [0, 1], a mean of outcomes in [0, 1], `pairs` of which are independent.
        alpha: how often the true chance may be larger.
    """
    low, high = share, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if tail(share, pairs, middle) > alpha else (low, middle)
    return high


def tail(share: float, pairs: int, chance: float) -> float:
    """A bound on the chance of a mean of at most `share` where `chance` is expected."""
    if share >= chance:
        return 1.0
    if chance >= 1:
        return 0.0
    divergence = _part(share, chance) + _part(1 - share, 1 - chance)
    counts = torch.arange(math.ceil(share * pairs - 1e-9) + 1, dtype=torch.float64)
    total = torch.tensor(float(pairs), dtype=torch.float64)
    logs = (
        torch.lgamma(total + 1)
        - torch.lgamma(counts + 1)
        - torch.lgamma(total - counts + 1)
        + counts * math.log(chance)
        + (total - counts) * math.log1p(-chance)
    )
    return min(math.exp(-pairs * divergence), math.e * logs.logsumexp(0).exp().item())


def _part(share: float, chance: float) -> float:
    return share * math.log(share / chance) if share else 0.0


def _of_samples(
    losses: Tensor, labels: Tensor, others: Tensor, other_labels: Tensor
) -> tuple[float, int]:
    """The share over all pairs of a class, and how many pairs there are without a sample twice.

    A class counts as often as it has such pairs: that makes the share the mean of all matchings.
    """
    right, pairs = 0.0, 0
    for label in classes(labels):
        mine, unseen = losses[labels == label], others[other_labels == label].sort().values
        count = min(len(mine), len(unseen))
        if count:
            lower = torch.searchsorted(unseen, mine)
            not_higher = torch.searchsorted(unseen, mine, right=True)
            won = 1 - (lower + not_higher).double() / 2 / len(unseen)
            right, pairs = right + count * won.mean().item(), pairs + count
    return (right / pairs, pairs) if pairs else (0.5, 0)


def _of_groups(
    losses: Tensor,
    labels: Tensor,
    others: Tensor,
    other_labels: Tensor,
    groups: Groups,
    seed: int,
) -> tuple[float, int]:
    """The same over random matchings of groups."""
    generator = torch.Generator().manual_seed(seed)
    mine = list(zip(groups.forget.tolist(), labels.tolist(), losses.tolist(), strict=True))
    unseen = list(zip(groups.holdout.tolist(), other_labels.tolist(), others.tolist(), strict=True))
    times = max(10, min(MATCHINGS, STEPS // max(len(mine) + len(unseen), 1)))
    shares, fewest = [], len(mine)
    for _ in range(times):
        outcomes = _matched(_shuffled(mine, generator), _shuffled(unseen, generator))
        fewest = min(fewest, len(outcomes))
        shares.append(sum(outcomes) / max(len(outcomes), 1))
    return (sum(shares) / len(shares), fewest) if fewest else (0.5, 0)


def _shuffled(
    samples: list[tuple[int, int, float]], generator: torch.Generator
) -> list[tuple[int, int, float]]:
    order = torch.randperm(len(samples), generator=generator)
    return [samples[place] for place in order.tolist()]


def _matched(
    mine: list[tuple[int, int, float]], unseen: list[tuple[int, int, float]]
) -> list[float]:
    """The outcomes of pairs of a class: each group, on either side, is in one at most."""
    waiting: dict[int, list[tuple[int, float]]] = {}
    for group, label, loss in unseen:
        waiting.setdefault(label, []).append((group, loss))
    taken: set[int] = set()
    done: set[int] = set()
    outcomes = []
    for group, label, loss in mine:
        if group in done:
            continue
        left = waiting.get(label, [])
        while left and left[-1][0] in taken:
            left.pop()
        if left:
            other, seen = left.pop()
            taken.add(other)
            done.add(group)
            outcomes.append(1.0 if loss < seen else 0.5 if loss == seen else 0.0)
    return outcomes
