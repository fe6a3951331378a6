"""The verdict: can the forget set still be told apart from samples the model never saw?

Shapes: F forget samples, H hold-out samples, N of both, C classes. Accuracies and DA are
fractions in [0, 1].
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from worker.unlearning.audit import guards
from worker.unlearning.audit.exchangeability import (
    ALPHA,
    PERMUTATIONS,
    Family,
    Test,
    exchangeability,
    scaled_confidence,
)
from worker.unlearning.audit.groups import Groups
from worker.unlearning.audit.guards import Limits
from worker.unlearning.audit.pair import ReferenceScores
from worker.unlearning.class_removal import lost_classes
from worker.unlearning.evaluation import Observed

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
    **guards.WORDS,
}
"""Each test as the reason of a verdict names it."""


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
    guarded = guards.guards(before, after, lost=lost, removing=removing, limits=limits)
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
    failed = [test for test in (*family.tests, *guarded) if not test.passed]
    return _audit(
        _reason(family, earlier, failed),
        seed,
        family.tests,
        earlier.tests,
        guarded,
        fails=bool(failed),
        has_power=bool(family.tests) and earlier.rejected,
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
    if test.high is None:
        return guards.in_words(test)
    return (
        f"{WORDS[test.name]}: {test.value:.3f}, expected {test.expected:.3f} ± {test.threshold:.3f}"
    )


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
