"""What a model has forgotten in many jobs, judged together.

One forgotten sample has no power; three hundred have. A *unit* is a forgotten group, or a sample on
its own, with one figure: the share of unseen samples of its classes that have a higher loss, 0.5 on
average for what the model never saw.

Shapes: F forget samples, H hold-out samples.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from worker.unlearning.audit.advantage import tail, upper_bound
from worker.unlearning.audit.groups import Groups
from worker.unlearning.samples import classes

ALPHA = 0.03
"""The error rate: that of the tests of a single job."""

CLEAR = 0.6
"""The share for which it is said how many pairs would be needed."""

MOST = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """A forgotten group, or a sample on its own, under one version."""

    samples: int
    label: int | None
    """Its class; None where it has several."""

    share: float
    """In [0, 1]."""

    peers: int
    """How many unseen groups of its classes it was compared with; see `units`."""

    everyone: int
    """How many unseen groups there are, of all classes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pooled:
    """What all units say together."""

    verdict: Literal["pass", "fail", "no_power"]
    reason: str
    """Why, in words."""

    units: int
    samples: int
    pairs: int
    """How many independent pairs of a forgotten and an unseen group the test rests on."""

    observed: float | None
    """The mean share; None without units."""

    low: float
    high: float
    """Its interval (97 %)."""

    p_value: float
    observed_before: float | None
    """The same under the versions that knew them."""

    p_value_before: float


def units(
    losses: Tensor,
    labels: Tensor,
    holdout_losses: Tensor,
    holdout_labels: Tensor,
    groups: Groups | None = None,
) -> list[Unit | None]:
    """The units of a forget set, in the order in which they first occur.

    None for a unit that is compared with nobody: the hold-out has no sample of its classes, or
    others of its group stay in training (`Groups.in_part`).

    Unseen groups of unequal size count as fewer: as many as equal ones that would give a mean of
    the same precision, (sum of sizes) ** 2 / (sum of their squares).

    Args:
        losses: (F,) in nats. labels: (F,) int64.
        holdout_losses, holdout_labels: (H,) the same of samples the model never saw.
    """
    codes = torch.arange(len(labels)) if groups is None else groups.forget
    whole = torch.ones(len(labels), dtype=torch.bool) if groups is None else groups.whole
    others = torch.arange(len(holdout_labels)) if groups is None else groups.holdout
    shares = torch.full((len(labels),), torch.nan, dtype=torch.float64)
    peers: dict[int, int] = {}
    for label in classes(labels):
        mine, theirs = labels == label, holdout_labels == label
        unseen = holdout_losses[theirs].double().sort().values
        peers[label] = _effective(others[theirs])
        if len(unseen):
            own = losses[mine].double()
            lower = torch.searchsorted(unseen, own)
            not_higher = torch.searchsorted(unseen, own, right=True)
            shares[mine] = 1 - (lower + not_higher).double() / 2 / len(unseen)
    everyone = _effective(others)
    found: list[Unit | None] = []
    for code in dict.fromkeys(codes.tolist()):
        here = (codes == code) & whole & ~shares.isnan()
        count = int(here.sum())
        own_classes = classes(labels[here])
        found.append(
            Unit(
                samples=count,
                label=own_classes[0] if len(own_classes) == 1 else None,
                share=shares[here].mean().item(),
                peers=min(peers[label] for label in own_classes),
                everyone=everyone,
            )
            if count
            else None
        )
    return found


def judge(after: Sequence[Unit], before: Sequence[Unit]) -> Pooled:
    """Test that forgotten units look like unseen ones: two-sided, with an error of at most ALPHA.

    No distribution is assumed: the test counts pairs of a forgotten and an unseen group that have
    nobody in common, as `advantage` does, so that it stays right though all jobs compare with the
    same hold-out. Where a class has more forgotten units than unseen ones, these count as often as
    pairs of equal weight would. Without enough units the verdict is `no_power`; so it is where the
    versions that knew the units would have passed as well.

    Source: as `advantage`. Pooling is our reconstruction.
    """
    share, pairs = _mean(after)
    share_before, pairs_before = _mean(before)
    p_value, p_before = (
        _two_sided(*each) for each in ((share, pairs), (share_before, pairs_before))
    )
    verdict: Literal["pass", "fail", "no_power"] = "pass"
    if p_value <= ALPHA:
        verdict = "fail"
    elif p_before > ALPHA:
        verdict = "no_power"
    return Pooled(
        verdict=verdict,
        reason=_reason(verdict, share, share_before, pairs),
        units=len(after),
        samples=sum(unit.samples for unit in after),
        pairs=pairs,
        observed=share if after else None,
        low=1 - upper_bound(1 - share, pairs, ALPHA / 2) if pairs else 0.0,
        high=upper_bound(share, pairs, ALPHA / 2) if pairs else 1.0,
        p_value=p_value,
        observed_before=share_before if before else None,
        p_value_before=p_before,
    )


def _effective(codes: Tensor) -> int:
    """How many groups of equal size are worth as much as the groups of these codes."""
    if not len(codes):
        return 0
    sizes = codes.unique(return_counts=True)[1].double()  # type: ignore[no-untyped-call]  # torch
    return int((sizes.sum().square() / sizes.square().sum() + 1e-9).item())


def _mean(found: Sequence[Unit]) -> tuple[float, int]:
    """The mean share, and how many pairs of equal weight it is worth."""
    if not found:
        return 0.5, 0
    spread = 0.0
    for label in {unit.label for unit in found}:
        here = [unit for unit in found if unit.label == label]
        weight = len(here) / len(found)
        spread += weight**2 / min(len(here), min(unit.peers for unit in here))
    everyone = min(unit.everyone for unit in found)
    return sum(unit.share for unit in found) / len(found), min(int(1 / spread + 1e-9), everyone)


def _two_sided(share: float, pairs: int) -> float:
    return min(1.0, 2 * tail(min(share, 1 - share), pairs, 0.5)) if pairs else 1.0


def _reason(verdict: str, share: float, before: float, pairs: int) -> str:
    compared = (
        f"{pairs} {'pair' if pairs == 1 else 'pairs'} of forgotten and unseen, judged together"
    )
    if verdict == "fail":
        return (
            f"{compared}, can be told apart: {100 * share:.1f} of 100 guesses are right, where 50 "
            "are chance."
        )
    if verdict == "pass":
        return (
            f"{compared}, cannot be told apart: {100 * share:.1f} of 100 guesses are right, where "
            f"50 are chance. Before they were forgotten it was {100 * before:.1f}."
        )
    return (
        f"{compared}, are too few or were too little memorised to tell, before or after. About "
        f"{_needed(CLEAR)} pairs would tell {100 * CLEAR:.0f} right guesses in 100 from chance: "
        "more requests, or more hold-out samples."
    )


def _needed(share: float) -> int:
    """The number of pairs from which such a share is told from chance."""
    low, high = 0, MOST
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _two_sided(share, middle) <= ALPHA else (middle, high)
    return high
