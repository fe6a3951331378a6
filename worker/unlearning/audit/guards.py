"""The guards: one-sided tests of the utility that a job must leave, and of a removed class.

Shapes: N samples, C classes. Accuracies are fractions in [0, 1].
"""

from dataclasses import dataclass
from statistics import NormalDist

from torch import Tensor

from worker.unlearning.audit.exchangeability import ALPHA, Test
from worker.unlearning.evaluation import Observed, Outputs
from worker.unlearning.samples import classes

WORDS = {
    "test_accuracy": "drop of test accuracy",
    "class_accuracy": "drop of accuracy in a retained class",
    "concept_removed": "accuracy on the removed class",
}
"""Each guard as the reason of a verdict names it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much utility a job may cost, as fractions of accuracy."""

    max_test_accuracy_drop: float = 0.03
    max_class_accuracy_drop: float = 0.10


def guards(
    before: Observed, after: Observed, *, lost: Tensor, removing: bool, limits: Limits
) -> tuple[Test, ...]:
    """Drops of accuracy, and accuracy left on a removed class; omits a guard without samples.

    Args:
        before, after: outputs on the same samples in the same order.
        lost: (C,) bool, the classes of which nothing is to be kept.
        removing: they are removed as a concept.
    """
    seen = [o.test if o.test is not None else o.holdout for o in (before, after)]
    kept = [outputs.select(~lost[outputs.labels]) for outputs in seen]
    every = [
        _drop("test_accuracy", *kept, limit=limits.max_test_accuracy_drop),
        _worst_class(before.retain, after.retain, limits.max_class_accuracy_drop),
        _concept(after.holdout.select(lost[after.holdout.labels])) if removing else None,
    ]
    return tuple(test for test in every if test is not None)


def in_words(guard: Test) -> str:
    """What a guard that failed found."""
    return (
        f"{WORDS[guard.name]}: {guard.value:.3f}, surely above {guard.low:.3f}, "
        f"allowed {guard.threshold:.3f}"
    )


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


def _right(outputs: Outputs) -> Tensor:
    return (outputs.logits.argmax(1) == outputs.labels).double()
