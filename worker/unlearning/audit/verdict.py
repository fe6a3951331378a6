"""The verdict: can the forget set still be told apart from samples the model never saw?

Shapes: F forget samples, H hold-out samples, N of both, C classes. Accuracies and DA are
fractions in [0, 1].
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

from torch import Tensor

from worker.unlearning.audit.exchangeability import (
    ALPHA,
    PERMUTATIONS,
    Family,
    Test,
    exchangeability,
    scaled_confidence,
)
from worker.unlearning.audit.groups import Groups
from worker.unlearning.audit.pair import ReferenceScores
from worker.unlearning.class_removal import lost_classes
from worker.unlearning.evaluation import Observed, Outputs
from worker.unlearning.samples import classes

__all__ = [
    "Audit",
    "Family",
    "Groups",
    "Limits",
    "ReferenceScores",
    "Test",
    "audit",
    "exchangeability",
    "scaled_confidence",
]

WORDS = {
    "membership_loss": "membership by loss (AUC)",
    "membership_margin": "membership by margin (AUC)",
    "membership_per_sample": "membership by reference models (AUC)",
    "accuracy": "accuracy on the forget set above hold-out",
    "probe_accuracy": "linear probe's accuracy on the forget set above hold-out",
    "probe_f1": "linear probe's F1 on the forget set above hold-out",
    "probe_nmi": "linear probe's NMI on the forget set above hold-out",
    "alignment": "dimensional alignment of the forget set above hold-out",
    "feature_norm": "log norm of forget features above hold-out",
    "test_accuracy": "drop of test accuracy",
    "class_accuracy": "drop of accuracy in a retained class",
    "concept_removed": "accuracy on the removed class",
}
"""Each test as the reason of a verdict names it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much utility a job may cost, as fractions of accuracy."""

    max_test_accuracy_drop: float = 0.03
    max_class_accuracy_drop: float = 0.10


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """The result of the tests, with everything it rests on.

    The verdict is `pass` if it neither fails nor lacks power.
    """

    fails: bool
    """A test of the family or a guard fails on the model after the job."""

    has_power: bool
    """The family would have rejected the model before the job. If not, it means nothing that it
    does not reject the model after the job."""

    reason: str
    """The reason of the verdict, in words."""

    tests: tuple[Test, ...]
    """The family, on the model after the job."""

    before: tuple[Test, ...]
    """The family, on the model before the job: what the tests can see."""

    guards: tuple[Test, ...]
    """One-sided tests of retained utility, and of a removed class."""

    alpha: float
    permutations: int
    seed: int


def audit(
    before: Observed,
    after: Observed,
    *,
    class_counts: Tensor,
    removing: bool,
    limits: Limits,
    references: ReferenceScores | None = None,
    groups: Groups | None = None,
    k: int | None = None,
    seed: int = 0,
) -> Audit:
    """Judge a job by the model's outputs on the same samples before and after it.

    A model retrained without the forget set fails with probability at most ALPHA, plus what the
    guards add. That holds where the forget set is, within its classes, drawn like the hold-out;
    where it was chosen because it is hard, or mislabelled, only `references` keep it true, and
    approximately.

    Args:
        before, after: outputs on the same samples in the same order; the job must not have used the
            hold-out.
        class_counts: (C,) number of retain samples per class.
        removing: the classes of the forget set are removed as a concept.
        groups: which samples belong together; without them, each is its own.
        k: directions of the eigenspace; the number of retained classes - 1 by default.

    Raises:
        ValueError: `before` and `after` show different samples.
    """
    _require_same(before, after)
    if not _finite(after):
        reason = "The model answers with values that are not finite."
        return _audit(reason, seed, fails=True, has_power=False)
    lost = lost_classes(after.forget.labels, class_counts, removing=removing)
    guards = _guards(before, after, lost, removing, limits)
    family, earlier = (
        exchangeability(
            observed,
            class_counts=class_counts,
            references=references,
            groups=groups,
            k=k,
            seed=seed,
        )
        for observed in (after, before)
    )
    failed = [test for test in (*family.tests, *guards) if not test.passed]
    return _audit(
        _reason(family, earlier, failed),
        seed,
        family.tests,
        earlier.tests,
        guards,
        fails=bool(failed),
        has_power=bool(family.tests) and earlier.rejected,
    )


def _guards(
    before: Observed, after: Observed, lost: Tensor, removing: bool, limits: Limits
) -> tuple[Test, ...]:
    """Drops of accuracy, and accuracy left on a removed class; omits a guard without samples."""
    seen = [o.test if o.test is not None else o.holdout for o in (before, after)]
    kept = [outputs.select(~lost[outputs.labels]) for outputs in seen]
    every = [
        _drop("test_accuracy", *kept, limit=limits.max_test_accuracy_drop),
        _worst_class(before.retain, after.retain, limits.max_class_accuracy_drop),
        _concept(after.holdout.select(lost[after.holdout.labels])) if removing else None,
    ]
    return tuple(test for test in every if test is not None)


def _worst_class(before: Outputs, after: Outputs, limit: float) -> Test | None:
    """The class whose drop has the largest lower bound; the error is divided among all classes."""
    present = classes(before.labels)
    masks = [before.labels == label for label in present]
    drops = [
        _drop("class_accuracy", before.select(m), after.select(m), limit=limit, tests=len(present))
        for m in masks
    ]
    return max(filter(None, drops), key=lambda test: test.low or 0.0, default=None)


def _drop(
    name: str, before: Outputs, after: Outputs, *, limit: float, tests: int = 1
) -> Test | None:
    """Whether accuracy on the same samples fell by more than the limit; None without samples.

    Fails when the lower bound of the drop, at error ALPHA / tests, is above the limit.

    Source:
        Adjusted Wald interval: Agresti and Min, "Simple improved confidence intervals for
        comparing matched proportions", 2005.
    """
    count = len(before.labels)
    if count == 0:
        return None
    drops = _right(before) - _right(after)  # (N,) -1, 0 or 1
    total, changed = drops.sum().item(), drops.abs().sum().item()
    centre = total / (count + 2)
    error = (changed + 1 - total * centre) ** 0.5 / (count + 2)
    low = centre - NormalDist().inv_cdf(1 - ALPHA / tests) * error
    p_value = min(tests * NormalDist().cdf((limit - centre) / error), 1.0)
    return _one_sided(name, total / count, low, p_value, limit, 0.0, count)


def _concept(holdout: Outputs) -> Test | None:
    """Whether a removed class is still answered more often than by chance; None without samples.

    Fails when the lower bound of the accuracy on its unseen samples is above 1 / C.

    Source:
        Wilson, "Probable inference", 1927.
    """
    count = len(holdout.labels)
    if count == 0:
        return None
    chance = 1 / holdout.logits.shape[1]
    share, z = _right(holdout).mean().item(), NormalDist().inv_cdf(1 - ALPHA)
    error = (share * (1 - share) / count + (z / (2 * count)) ** 2) ** 0.5
    low = (share + z**2 / (2 * count) - z * error) / (1 + z**2 / count)
    p_value = NormalDist().cdf((chance - share) / (chance * (1 - chance) / count) ** 0.5)
    return _one_sided("concept_removed", share, low, p_value, chance, chance, count)


def _one_sided(
    name: str, value: float, low: float, p_value: float, limit: float, expected: float, count: int
) -> Test:
    return Test(
        name=name,
        value=value,
        low=low,
        high=None,
        expected=expected,
        threshold=limit,
        p_value=p_value,
        forget_samples=0,
        holdout_samples=count,
        passed=low <= limit,
    )


def _reason(family: Family, earlier: Family, failed: Sequence[Test]) -> str:
    remarks = "".join(f" ({remark})" for remark in family.remarks)
    if failed:
        return f"{'; '.join(map(_in_words, failed))}.{remarks}"
    if not family.tests:
        return f"No forget sample can be compared to the hold-out.{remarks}"
    if not earlier.rejected:
        return (
            "The model before the job would have passed: too few samples, or too little memorised, "
            f"for these tests to see.{remarks}"
        )
    return (
        "Influence reduced to within the measured range of models never trained on these samples, "
        f"under these tests; the model before the job was outside it.{remarks}"
    )


def _in_words(test: Test) -> str:
    what = WORDS[test.name]
    if test.high is None:
        return (
            f"{what}: {test.value:.3f}, surely above {test.low:.3f}, allowed {test.threshold:.3f}"
        )
    return f"{what}: {test.value:.3f}, expected {test.expected:.3f} ± {test.threshold:.3f}"


def _audit(
    reason: str,
    seed: int,
    tests: tuple[Test, ...] = (),
    before: tuple[Test, ...] = (),
    guards: tuple[Test, ...] = (),
    *,
    fails: bool,
    has_power: bool,
) -> Audit:
    return Audit(
        fails=fails,
        has_power=has_power,
        reason=reason,
        tests=tests,
        before=before,
        guards=guards,
        alpha=ALPHA,
        permutations=PERMUTATIONS,
        seed=seed,
    )


def _require_same(before: Observed, after: Observed) -> None:
    for name in ("forget", "retain", "holdout", "test"):
        labels = [
            None if s is None else s.labels.tolist()
            for s in (getattr(before, name), getattr(after, name))
        ]
        if labels[0] != labels[1]:
            raise ValueError(f"before and after show different {name} samples")


def _finite(observed: Observed) -> bool:
    shown = (observed.forget, observed.retain, observed.holdout, observed.test)
    return all(
        bool(outputs.features.isfinite().all() and outputs.logits.isfinite().all())
        for outputs in shown
        if outputs is not None
    )


def _right(outputs: Outputs) -> Tensor:
    return (outputs.logits.argmax(1) == outputs.labels).double()
