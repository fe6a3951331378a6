"""To the model, do forget samples look like samples it never saw? One family of tests.

Shapes: F forget samples, H hold-out samples, N of both, C classes, S scores, b permutations.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from worker.unlearning.audit.by_group import by_group
from worker.unlearning.audit.family import ALPHA, PERMUTATIONS, Family, Test
from worker.unlearning.audit.groups import Groups
from worker.unlearning.audit.pair import Pair, ReferenceScores
from worker.unlearning.audit.permutation import max_t, shuffles
from worker.unlearning.audit.scores import RANKED, no_covariates, sample_scores
from worker.unlearning.evaluation import Observed
from worker.unlearning.probes import Cells
from worker.unlearning.samples import classes

PROBED = 20
"""Forget samples from which F1 and NMI of the probe are compared."""

PER_CLASS = 5
"""Samples of a class on either side from which it is part of F1 and NMI: these give every class the
same weight, and no test should rest on a single sample."""

DOUBT = 1.5
"""Share of its own size by which an adjustment for difficulty may be too small. Reference models
are few and their answers noisy, which flattens every fit to them; and of two samples they find
equally hard, one may be hard and the other mislabelled. Chosen on retrained CIFAR-10 models: for
membership of mislabelled samples, they needed 0.5 to 1.5."""


def exchangeability(
    observed: Observed,
    *,
    class_counts: Tensor,
    references: ReferenceScores | None = None,
    groups: Groups | None = None,
    k: int | None = None,
    seed: int = 0,
    permutations: int = PERMUTATIONS,
) -> Family:
    """Test that forget samples look to the model like hold-out samples of the same class.

    All statistics are two-sided and share permutations of who is forgotten, within classes; the
    largest standardised one is judged (see `max_t`), so that a model that never saw the forget
    set is rejected at a rate of at most ALPHA, whatever their correlations.

    Without `references` the permutations are exact for a forget set drawn like the hold-out. With
    them, scores that depend on the label are compared at equal out-of-sample confidence, and scores
    of the features at equal confidence of the model's own answer, by a linear model with a margin
    of doubt (`DOUBT`): the forget set may then be harder than the hold-out, or mislabelled. The
    error rate is approximate in that case.

    With `groups`, groups are permuted instead of samples: see `by_group`. Samples of groups that
    are forgotten in part are not compared: a model that never saw them may know the group by its
    other samples. Where they are most of the forget set, it is said that the tests cannot tell
    (`Family.lacking`), whatever they find of the others.

    Source:
        Permuting residuals: Freedman and Lane, 1983. Membership by reference models: Carlini et
        al., "Membership Inference Attacks From First Principles", 2022, arXiv:2112.03570. Putting
        these together is our reconstruction.
    """
    if groups is not None and not groups.whole.all():
        return _of_whole_groups(
            observed, class_counts, references, groups, k=k, seed=seed, permutations=permutations
        )
    if groups is not None and not groups.single:
        return by_group(
            observed, class_counts, references, groups, k=k, seed=seed, permutations=permutations
        )
    generator = torch.Generator().manual_seed(seed)
    pair = Pair.of(observed, references, generator)
    if pair.forget_samples == 0:
        return Family(tests=(), p_value=1.0, remarks=pair.remarks)
    scores = sample_scores(observed.retain, pair, class_counts, k)
    tables = _tables(pair, scores.read_as, generator)
    rows = torch.cat(
        [
            torch.cat([scores.differences(places), tables.differences(places)], 1)
            for places in shuffles(pair.outputs.labels, permutations + 1, generator)
        ]
    )  # (B, S)
    linear = len(scores.names)
    centre = torch.cat([rows.new_zeros(linear), rows[:, linear:].mean(0)])
    values, doubt = rows[0].clone(), torch.zeros_like(centre)
    doubt[:linear] = DOUBT * (values[:linear] - scores.unadjusted)
    rows[0] = centre + _nearest_to_zero(values - centre, doubt)
    found = max_t(rows, centre, ALPHA)
    figures = zip(
        (*scores.names, *tables.names),
        *(each.tolist() for each in (values, centre, doubt, found.threshold, found.p_value)),
        strict=True,
    )
    tests = tuple(_test(pair, *each) for each in figures)
    return Family(
        tests=tests,
        p_value=min(test.p_value for test in tests),
        remarks=pair.remarks + tables.remarks,
    )


def _of_whole_groups(
    observed: Observed,
    class_counts: Tensor,
    references: ReferenceScores | None,
    groups: Groups,
    *,
    k: int | None,
    seed: int,
    permutations: int,
) -> Family:
    """The tests of groups of which nothing stays, and what is to be said of the others."""
    whole = groups.whole
    parts, every = (len(set(each.tolist())) for each in (groups.forget[~whole], groups.forget))
    known = (
        f"of {parts} of the {every} forgotten groups other samples stay in training, and by those "
        "even a model that never saw the samples to forget may know these groups"
    )
    advice = (
        "name the groups as `subjects`, or name all of their samples, or ask for an exact "
        "retraining (`exact`)"
    )
    if not whole.any():
        return Family(tests=(), p_value=1.0, remarks=(), lacking=f"{known}; {advice}")
    family = exchangeability(
        replace(observed, forget=observed.forget.select(whole)),
        class_counts=class_counts,
        references=references and references.of(whole),
        groups=groups.of_whole(),
        k=k,
        seed=seed,
        permutations=permutations,
    )
    judged, left = int(whole.sum()), int((~whole).sum())
    if left > judged:
        most = f"most samples ({left} of {judged + left}) are not judged, because {known}; {advice}"
        return replace(family, lacking=most)
    remark = f"{left} of {judged + left} forget samples are not judged: {known}; {advice}"
    return replace(family, remarks=(*family.remarks, remark))


@dataclass(frozen=True, slots=True)
class _Tables:
    """Contingency of label and probe, ready to be compared under any permutation."""

    pair: Pair
    compared: Tensor
    """(N,) bool, the samples of the classes that are compared."""

    cells: Cells | None
    """None when tables are not compared."""

    remarks: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return () if self.cells is None else ("probe_f1", "probe_nmi")

    def differences(self, places: Tensor) -> Tensor:
        """(b, 2) how much higher F1 and NMI are on forget samples; (b, 0) if not compared."""
        if self.cells is None:
            return torch.zeros(len(places), 0, dtype=torch.float64)
        mine = self.pair.mine.double().take(places)[:, self.compared]
        first = self.cells.count(mine)
        second = self.cells.count((1 - mine) * _mix(self.pair)[self.compared])
        figures = (self.cells.macro_f1, self.cells.nmi)
        return torch.stack([figure(first) - figure(second) for figure in figures], 1)


def _tables(pair: Pair, read_as: Tensor, generator: torch.Generator) -> _Tables:
    labels, mine = pair.outputs.labels, pair.mine
    fewest = torch.stack(
        [labels[side].bincount(minlength=int(labels.max()) + 1) for side in (mine, ~mine)]
    ).amin(0)
    compared = (fewest >= PER_CLASS)[labels]
    kept = classes(labels[compared])
    if len(kept) < 2 or int(mine[compared].sum()) < PROBED:
        return _Tables(pair, compared, None, ("too few forget samples or classes for F1 and NMI",))
    if not _as_hard(pair, generator):
        return _Tables(
            pair,
            compared,
            None,
            ("F1 and NMI left out: the forget set is not as hard as the hold-out",),
        )
    rare = len(classes(labels)) - len(kept)
    remark = (
        f"classes of fewer than {PER_CLASS} samples on a side are no part of F1 and NMI: {rare}"
    )
    return _Tables(
        pair, compared, Cells.of(labels[compared], read_as[compared]), (remark,) * (rare > 0)
    )


def _as_hard(pair: Pair, generator: torch.Generator) -> bool:
    """Whether reference models find the forget set as hard as the hold-out; True without them."""
    if pair.out_mean is None:
        return True
    hardness = pair.residuals(pair.out_mean, no_covariates(pair), ranked=True)
    weights, places = (
        pair.weights(no_covariates(pair)),
        shuffles(pair.outputs.labels, 200, generator),
    )
    rows = torch.cat([weights[chunk] @ hardness for chunk in places])
    return max_t(rows[:, None], torch.zeros(1).double(), ALPHA).p_value.item() > ALPHA


def _mix(pair: Pair) -> Tensor:
    """(N,) forget samples for each hold-out sample, in the class of each sample."""
    labels, mine = pair.outputs.labels, pair.mine
    size = int(labels.max()) + 1
    counts = [labels[group].bincount(minlength=size).double() for group in (mine, ~mine)]
    return (counts[0] / counts[1])[labels]


def _nearest_to_zero(values: Tensor, doubt: Tensor) -> Tensor:
    """The value of smallest magnitude between each value and value + doubt."""
    opposed = values * doubt < 0
    smaller = values.sign() * (values.abs() - doubt.abs()).clamp_min(0)
    return torch.where(opposed, smaller, values)


def _test(
    pair: Pair,
    name: str,
    value: float,
    centre: float,
    doubt: float,
    margin: float,
    p_value: float,
) -> Test:
    shift = 0.5 if name in RANKED else 0.0
    opposed = (value - centre) * doubt < 0
    return Test(
        name=name,
        value=value + shift,
        low=value + shift - margin + min(doubt, 0),
        high=value + shift + margin + max(doubt, 0),
        expected=centre + shift,
        threshold=margin + (abs(doubt) if opposed else 0),
        p_value=p_value,
        forget_samples=pair.forget_samples,
        holdout_samples=pair.holdout_samples,
        passed=p_value > ALPHA,
    )
