"""The verdict: can the forget set still be told apart from samples the model never saw?

Shapes: F forget samples, H hold-out samples, N of both, C classes. Accuracies and DA are
fractions in [0, 1].
"""

from dataclasses import dataclass

from torch import Tensor

from worker.unlearning.audit import guards
from worker.unlearning.audit.exchangeability import exchangeability
from worker.unlearning.audit.family import ALPHA, PERMUTATIONS, Family, Test
from worker.unlearning.audit.groups import Groups
from worker.unlearning.audit.guards import Limits
from worker.unlearning.audit.pair import ReferenceScores
from worker.unlearning.audit.reasons import WORDS, reason_of
from worker.unlearning.audit.scores import scaled_confidence
from worker.unlearning.class_removal import lost_classes
from worker.unlearning.evaluation import Observed

__all__ = [
    "WORDS",
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
    failed = [*family.failed, *(test for test in guarded if not test.passed)]
    return _audit(
        reason_of(family, earlier, failed),
        seed,
        family.tests,
        earlier.tests,
        guarded,
        fails=bool(failed),
        has_power=(
            bool(family.tests)
            and earlier.rejected
            and not family.unclear
            and family.lacking is None
        ),
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
