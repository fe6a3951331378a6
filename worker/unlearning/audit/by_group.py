"""To the model, do forgotten groups look like groups it never saw?

What is exchangeable here are whole groups. Nothing is said of samples within one: they may be as
alike as they please, and a group harder or easier than others, for all of that moves with the group
when groups change places.

Shapes: N samples, G groups, S scores, B permutations.
"""

from dataclasses import replace

import torch
from torch import Tensor

from worker.unlearning.audit.by_reference import by_reference
from worker.unlearning.audit.family import ALPHA, Family, Test
from worker.unlearning.audit.groups import Groups, Units, needed, numbered
from worker.unlearning.audit.pair import Pair, ReferenceScores
from worker.unlearning.audit.permutation import max_t
from worker.unlearning.audit.scores import FREE, RANKED, sample_scores
from worker.unlearning.evaluation import Observed
from worker.unlearning.samples import classes


def by_group(
    observed: Observed,
    class_counts: Tensor,
    references: ReferenceScores | None,
    groups: Groups,
    *,
    k: int | None,
    seed: int,
    permutations: int,
) -> Family:
    """Test that forgotten groups look to the model like hold-out groups.

    Without reference models the statistic of a score is the mean over forgotten groups, weighted by
    precision, of how much higher a group scores than all others do in its classes. It is judged
    among permutations of whole groups within strata of like size (`Units`). If the forgotten groups
    are drawn like the hold-out's of their size, the error rate is at most ALPHA exactly, however
    few groups there are. They may have been chosen because they are hard, or unusual, which shows
    as well: so only what looks like training counts against the model, that is a label-dependent
    score above that of unseen groups; what else differs makes the result unclear
    (`Family.unclear`).

    Reference models that have seen a whole group or nothing of it take its difficulty out, and need
    no hold-out groups to compare with: then only they are asked (`by_reference`).
    """
    generator = torch.Generator().manual_seed(seed)
    pair = Pair.of(observed, references, generator, groups)
    if pair.forget_samples == 0:
        return Family(tests=(), p_value=1.0, remarks=pair.remarks)
    if references is None:
        return _permuted(observed, pair, class_counts, k, generator, permutations)
    found = by_reference(observed.retain, pair, class_counts, generator)
    if isinstance(found, Family):
        return found
    unaided = replace(pair, out_mean=None, out_std=None)
    family = _permuted(observed, unaided, class_counts, k, generator, permutations)
    return replace(
        family, remarks=(*family.remarks, f"the reference models cannot judge groups: {found}")
    )


def _permuted(
    observed: Observed,
    pair: Pair,
    class_counts: Tensor,
    k: int | None,
    generator: torch.Generator,
    permutations: int,
) -> Family:
    units = Units.of(pair.codes, pair.mine, ALPHA, generator)
    usual = _usual(pair)
    scores = sample_scores(observed.retain, pair, class_counts, k, usual)
    means = units.means(torch.cat(scores.scores, 1), pair.outputs.labels)  # (G, S)
    weights = _precision(means, units.strata)
    rows = torch.cat(
        [
            (taken.double() @ (weights * means)) / (taken.double() @ weights)
            for taken in units.shuffles(permutations + 1, generator)
        ]
    )  # (B, S)
    found = max_t(rows, torch.zeros(rows.shape[1], dtype=torch.float64), ALPHA)
    tests = tuple(
        _test(pair, *each)
        for each in zip(
            scores.names,
            rows[0].tolist(),
            found.threshold.tolist(),
            found.p_value.tolist(),
            strict=True,
        )
    )
    return Family(
        tests=tests,
        p_value=min(test.p_value for test in tests),
        remarks=pair.remarks,
        unclear=tuple(test.name for test in tests if not test.passed and not _memory(test)),
        lacking=_lacking(units),
    )


def _usual(pair: Pair) -> Tensor:
    """(N, 1) how usual its label is in its group: the share of the group's other samples with it.

    People with one answer are easier than people with several, in each class: without this, groups
    with another class mix than the hold-out's look trained on. One more sample, of the class mix of
    all, stands for what is not known of small groups. Like everything that is taken out here, it
    moves with the group, so the permutations stay exact.
    """
    labels = pair.outputs.labels
    place, sizes = numbered(pair.codes)
    cell, counts = numbered(place * (int(labels.max()) + 1) + labels)
    shares = labels.bincount().double() / len(labels)
    return ((counts[cell] - 1 + shares[labels]) / sizes[place])[:, None]


def _precision(means: Tensor, strata: Tensor) -> Tensor:
    """(G, S) one over the variance of the groups in the stratum of each."""
    spread = torch.zeros_like(means)
    for stratum in classes(strata):
        here = strata == stratum
        spread[here] = means[here].square().mean(0)
    return 1 / spread.clamp_min(1e-12 + 1e-6 * means.square().mean(0))


def _memory(test: Test) -> bool:
    """Whether a failing test says what only training explains, and not difficulty."""
    return test.name not in FREE and test.value > test.expected


def _lacking(units: Units) -> str | None:
    """What would give the tests power, if no difference however large could be seen."""
    forgotten = int(units.mine.sum())
    if units.orders >= 1 / ALPHA:  # an integer too large for a float
        return None
    there, wanted = len(units.mine) - forgotten, needed(forgotten, ALPHA)
    return (
        f"{_counted(forgotten, 'forgotten group')} cannot be told from {there} hold-out groups "
        f"with an error of {ALPHA:.0%}: {wanted} hold-out groups would do, or eight reference "
        "models by group (policy `reference_models`)"
    )


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _test(pair: Pair, name: str, value: float, margin: float, p_value: float) -> Test:
    expected = 0.5 if name in RANKED else 0.0
    return Test(
        name=name,
        value=value + expected,
        low=value + expected - margin,
        high=value + expected + margin,
        expected=expected,
        threshold=margin,
        p_value=p_value,
        forget_samples=pair.forget_samples,
        holdout_samples=pair.holdout_samples,
        passed=p_value > ALPHA,
    )
