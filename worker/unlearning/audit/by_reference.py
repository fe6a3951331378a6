"""Is the model as sure of forgotten groups as networks that never saw them?

Reference models were trained on halves of the groups, so each has seen all of a group or nothing.
Let R(i, g) be the mean scaled confidence of network i on group g, less its mean on the hold-out in
the class mix of g (less the group itself, for a hold-out group); each sample in units of the
standard deviation of what networks say of it that have not seen it. Under the null the model has
not seen g either: up to its level and slope, which the hold-out tells, its R(m, g) is one more draw
of what networks that have not seen g say of these very samples. So the group's difficulty cancels,
and networks that have not seen it give the spread. Other groups, the hold-out's among them, tell
the spread as well: that is why a handful of networks is enough.

Shapes: K reference models, F forget samples, H hold-out samples, N of both, G groups, C classes.

Source:
    Per-sample confidence under models that have or have not seen a sample: Carlini et al.,
    "Membership Inference Attacks From First Principles", 2022, arXiv:2112.03570. The unit and the
    spread are our reconstruction.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from worker.unlearning.audit import student
from worker.unlearning.audit.family import ALPHA, Family, Test
from worker.unlearning.audit.groups import numbered
from worker.unlearning.audit.pair import Pair
from worker.unlearning.audit.scores import scaled_confidence
from worker.unlearning.evaluation import Outputs, retain_weights
from worker.unlearning.samples import class_balanced

NAMES = ("membership_per_group", "probe_membership_per_group")

FORGOTTEN = 2.0
"""How many times farther below what is expected than above it the model's own answers may lie."""

FREEDOM = 3
"""Degrees of freedom below which nothing is said of a spread."""

BORROWED = 12
"""The most degrees of freedom that a group's spread takes from other groups: the answers to some
people vary more between networks than those to others."""

PRIOR = 16
"""The weight of the median variance in that of a sample, in number of scores."""

FITTED, PENALTY, ITERATIONS = 3000, 1e-3, 60
"""Retain samples, weight decay and steps of the refitted head."""


def by_reference(
    retain: Outputs, pair: Pair, class_counts: Tensor, generator: torch.Generator
) -> Family | str:
    """Test by reference models that the model never saw the forgotten groups.

    Two tests share the error, both Student's t of the forgotten groups together, weighted by
    precision: of the model's own answers, and of those of a head refitted to its features, because
    a head alone can be taught to look as if it had forgotten. Both look for answers too sure.
    Answers less sure than those of networks that never saw the groups fail the first test, from
    twice the distance on: a model retrained without all of the groups lacks what they have in
    common, which every reference model has half of. Not so where a class leaves: then reference
    models know the class, and no model that was trained without it is as sure as they are.

    Returns:
        Why the reference models cannot tell, in words, if they cannot.
    """
    scores, seen = pair.reference_scores, pair.reference_seen
    if scores is None or seen is None:
        return "what each of them says of a sample was not kept; train them anew"
    units = _Units.of(pair)
    if not units.whole(seen):
        return (
            "they were trained on halves of samples, so they have seen a part of each group; "
            "train them anew, on halves of groups"
        )
    own = scaled_confidence(pair.outputs.logits, pair.outputs.labels)
    refitted = _refitted(retain, class_counts, pair, generator)
    spread = scores[:, ~pair.mine].std(1, correction=0).mean()
    scale = _spread_of_samples(scores, seen)
    stays = bool((class_counts[pair.outputs.labels[pair.mine]] > 0).all())
    tests: list[Test] = []
    for name, confidence in zip(NAMES, (own, _as_spread(refitted, pair, spread)), strict=True):
        every = torch.cat([scores, confidence[None]]) / scale
        found = units.judged(_as_steep(every, seen, ~pair.mine), seen)
        if found is None:
            return "they are too few to know by how much such networks differ; eight would do"
        tests.append(_test(pair, name, found, below=name == NAMES[0] and stays))
    return Family(
        tests=tuple(tests), p_value=min(test.p_value for test in tests), remarks=pair.remarks
    )


@dataclass(frozen=True, slots=True)
class _Found:
    value: float
    error: float
    df: float


@dataclass(frozen=True, slots=True)
class _Units:
    """The groups of a pair, with what is needed to compare networks on them."""

    place: Tensor
    """(N,) the group of each sample, from 0 without gaps."""

    labels: Tensor
    """(N,)"""

    sizes: Tensor
    """(G,)"""

    mine: Tensor
    """(G,) bool, the forgotten groups."""

    @classmethod
    def of(cls, pair: Pair) -> "_Units":
        place, sizes = numbered(pair.codes)
        mine = torch.zeros(len(sizes), dtype=torch.bool)
        mine[place[pair.mine]] = True
        labels, _ = numbered(pair.outputs.labels)
        return cls(place, labels, sizes.double(), mine)

    def whole(self, seen: Tensor) -> bool:
        """Whether each reference model has seen (K, N) all of a group or nothing."""
        shares = self._means(seen.double())
        return bool(((shares == 0) | (shares == 1)).all())

    def judged(self, scores: Tensor, seen: Tensor) -> _Found | None:
        """The last network of scores (K + 1, N) beside the others; None if they tell too little."""
        levels = self._levels(scores)  # (K + 1, G)
        usable = ~levels.isnan().any(0)
        unseen = (self._means(seen.double()) == 0).double() * usable  # (K, G)
        count = unseen.sum(0)  # (G,)
        levels = levels.nan_to_num()
        mean = (unseen * levels[:-1]).sum(0) / count.clamp_min(1)
        freedom = (count - 1).clamp_min(0)
        squares = (unseen * (levels[:-1] - mean)).square().sum(0)
        held = (~self.mine & usable).sum().clamp_min(1)
        # Each hold-out group is measured against the others: one of them tells nothing more, and
        # with one group less to compare with, their figures vary more.
        freedom = torch.where(self.mine, freedom, freedom * (held - 1) / held)
        squares = torch.where(self.mine, squares, squares * (held - 1) / held * (1 - 1 / held**2))
        expected, pooled = self._pooled(squares, freedom)
        compared = (self.mine & (count > 0) & usable & (freedom + pooled >= FREEDOM)).nonzero()
        compared = compared.squeeze(1)
        if len(compared) == 0:
            return None
        df = (freedom + pooled)[compared]
        variance = (squares + pooled * expected)[compared] / df
        more = 1 + 1 / count[compared]  # the mean of the others varies, too
        away = levels[-1, compared] - mean[compared]  # (groups,)
        weights = 1 / (torch.where(pooled > 0, expected, variance.mean())[compared] * more)
        weights = weights / weights.sum()
        shared = self._shared(scores[:-1]).clamp_max(variance.min() / 2)
        parts = weights.square() * (variance - shared) * more
        apart, together = parts.sum(), (weights * more).sum() * shared
        known = apart.square() / (parts.square() / df).sum()  # Satterthwaite
        held_known = ((held - 1) * (len(scores) - 2)).clamp_min(df.min())
        # both may rest on the same draws, so their errors are added as if they were one
        error = apart / known.sqrt() + together / held_known.sqrt()
        total = apart + together
        freedoms = total.square() / error.square()
        return _Found((weights * away).sum().item(), total.sqrt().item(), freedoms.item())

    def _pooled(self, squares: Tensor, freedom: Tensor) -> tuple[Tensor, Tensor]:
        """What all other groups tell of the variance of each, and their degrees of freedom: (G,).

        A mean over n samples has the variance a + b / n. Both are fitted to the variances found,
        weighted by precision, without the group itself; where they are not determined, because no
        other group is as large, the degrees of freedom are about 0.
        """
        found = squares / freedom.clamp_min(1e-9)
        design = torch.stack([torch.ones_like(self.sizes), 1 / self.sizes], 1)  # (G, 2)
        usual = (squares.sum() / freedom.sum().clamp_min(1e-9)).expand_as(found)
        identity = torch.eye(2, dtype=torch.float64)
        for _ in range(3):
            weights = freedom / usual.clamp_min(1e-12).square()
            outer = weights[:, None, None] * design[:, :, None] * design[:, None]
            moment = (weights * found)[:, None] * design
            ridge = 1e-9 * outer.sum(0).diagonal().amax().clamp_min(1e-12) * identity
            fitted = torch.linalg.solve(outer.sum(0) + ridge, moment.sum(0)).clamp_min(0)
            usual = (design @ fitted).clamp_min(1e-12)
        left = outer.sum(0) - outer  # (G, 2, 2)
        fitted = torch.linalg.solve(left + ridge, moment.sum(0) - moment).clamp_min(0)
        expected = (fitted * design).sum(1)
        # as if a third of a degree of freedom were known of a and of b: without other groups of
        # like size this stays all there is
        least = identity / (3 * usual.square()[:, None, None])
        known = usual.square() / (design * torch.linalg.solve(left + least, design)).sum(1)
        return expected, known.clamp(0, BORROWED) * (known >= 1)

    def _levels(self, scores: Tensor) -> Tensor:
        """(K, G) the mean scores (K, N) of groups, above the hold-out in their class mix.

        NaN where no other hold-out group has a class of the group.
        """
        classes = int(self.labels.max()) + 1
        cell, counts = numbered(self.place * classes + self.labels)
        group, label = torch.zeros_like(counts), torch.zeros_like(counts)
        group[cell], label[cell] = self.place, self.labels
        own, counts = _summed(scores, cell, len(counts)), counts.double()
        theirs = (~self.mine[group]).double()
        totals = _summed(own * theirs, label, classes)
        sizes = _summed((counts * theirs)[None], label, classes)[0]
        left = sizes[label] - counts * theirs
        usable = (left > 0).double()
        apart = own - counts * (totals[:, label] - own * theirs) / left.clamp_min(1)
        compared = _summed((counts * usable)[None], group, len(self.sizes))
        levels = _summed(apart * usable, group, len(self.sizes)) / compared.clamp_min(1)
        return torch.where(compared > 0, levels, torch.nan)

    def _shared(self, scores: Tensor) -> Tensor:
        """The variance of a network's level on the hold-out: what all groups' figures share."""
        held = self._means(scores - scores.mean(0))[:, ~self.mine]
        sizes = self.sizes[~self.mine]
        shares = sizes / sizes.sum()
        if len(sizes) < 2:
            return torch.tensor(torch.inf).double()
        apart = held - (held * shares).sum(1, keepdim=True)
        few = len(sizes) / (len(sizes) - 1) * len(scores) / (len(scores) - 1)
        return (shares * apart).square().sum(1).mean() * few

    def _means(self, values: Tensor) -> Tensor:
        """(K, G) mean over each group of values (K, N)."""
        return _summed(values, self.place, len(self.sizes)) / self.sizes


def _summed(values: Tensor, places: Tensor, size: int) -> Tensor:
    """(K, size) sums of values (K, M) by their places (M,)."""
    return values.new_zeros(len(values), size).index_add_(1, places, values)


def _refitted(
    retain: Outputs, class_counts: Tensor, pair: Pair, generator: torch.Generator
) -> Tensor:
    """(N,) scaled confidence of a head refitted to the features of retain samples."""
    kept = class_balanced(retain.labels, FITTED, generator)
    features, labels = retain.features[kept].double(), retain.labels[kept]
    weights = retain_weights(labels, class_counts).double()
    mean, scale = features.mean(0), features.std(0, correction=0)
    scale = torch.where(scale > 1e-9 * (1 + mean.abs()), 1 / scale, 0)
    inputs, weights = (features - mean) * scale, weights / weights.sum()
    head = torch.zeros(inputs.shape[1] + 1, pair.outputs.logits.shape[1], dtype=torch.float64)
    head.requires_grad_()
    optimizer = torch.optim.LBFGS([head], max_iter=ITERATIONS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        entropy = F.cross_entropy(inputs @ head[:-1] + head[-1], labels, reduction="none")
        total = weights @ entropy + PENALTY * head[:-1].square().sum()
        total.backward()  # type: ignore[no-untyped-call]  # torch
        return total

    with torch.enable_grad():
        optimizer.step(loss)  # type: ignore[no-untyped-call]  # torch
    head = head.detach()
    theirs = (pair.outputs.features.double() - mean) * scale
    return scaled_confidence(theirs @ head[:-1] + head[-1], pair.outputs.labels)


def _spread_of_samples(scores: Tensor, seen: Tensor) -> Tensor:
    """(N,) by how much networks that have not seen a sample differ on it, from scores (K, N).

    Without this unit a few samples far from all others, on which every network says something
    else, decide the mean of a group. The variance of a sample is shrunk towards the median one.
    """
    unseen = (~seen).double()
    count = unseen.sum(0)
    mean = (unseen * scores).sum(0) / count.clamp_min(1)
    squares = (unseen * (scores - mean)).square().sum(0)
    known = count > 1
    if not known.any():
        return torch.ones_like(mean)
    usual = (squares[known] / (count[known] - 1)).median()
    variance = (PRIOR * usual + squares) / (PRIOR + (count - 1).clamp_min(0))
    return variance.clamp_min(1e-12).sqrt()


def _as_steep(scores: Tensor, seen: Tensor, held: Tensor) -> Tensor:
    """Scores (K + 1, N), the last row as different between easy and hard samples as the others are.

    A model that learned from more samples than the reference models is not surer by the same amount
    everywhere, so a group of easy people would look unlike unseen ones. The slope of each network's
    scores over the mean of the others is taken from the hold-out, which none has seen.

    Args:
        seen: (K, N) bool. held: (N,) bool, the hold-out.
    """
    references, model = scores[:-1, held], scores[-1, held]
    others = (references.sum(0) - references) / max(len(references) - 1, 1)
    others = others - others.mean(1, keepdim=True)  # (K, H)
    theirs, own = (others * references).sum(1).mean(), (others * model).sum(1).mean()
    if len(references) < 2 or theirs <= 0:
        return scores
    steeper = (own / theirs).clamp(0.5, 2) - 1
    unseen = (~seen).double()
    mean = (unseen * scores[:-1]).sum(0) / unseen.sum(0).clamp_min(1)  # (N,)
    return torch.cat([scores[:-1], (scores[-1] - steeper * (mean - mean[held].mean()))[None]])


def _as_spread(confidence: Tensor, pair: Pair, spread: Tensor) -> Tensor:
    """The confidence (N,) in units in which the hold-out spreads as under a reference model."""
    own = confidence[~pair.mine].std(correction=0)
    return confidence * (spread / own) if own > 1e-9 else confidence


def _test(pair: Pair, name: str, found: _Found, *, below: bool) -> Test:
    """One-sided, or with `below` also against answers far less sure."""
    margin = found.error * student.quantile(2 * ALPHA / len(NAMES), found.df)
    away = found.value if found.value > 0 else -found.value / FORGOTTEN * below
    tail = student.two_sided(away / max(found.error, 1e-12), found.df) / 2
    p_value = min(tail * len(NAMES), 1.0)
    return Test(
        name=name,
        value=found.value,
        low=found.value - margin,
        high=found.value + FORGOTTEN * margin if below else None,
        expected=0.0,
        threshold=margin if below else 0.0,
        p_value=p_value,
        forget_samples=pair.forget_samples,
        holdout_samples=pair.holdout_samples,
        passed=p_value > ALPHA,
    )
