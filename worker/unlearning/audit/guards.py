"""The guards: one-sided tests of the utility that a job must leave, and of a removed class.

Shapes: N samples, C classes. Accuracies are fractions in [0, 1].
"""

from dataclasses import dataclass
from statistics import NormalDist

import torch
from torch import Tensor

from worker.unlearning.audit.family import ALPHA, Test
from worker.unlearning.evaluation import Observed, Outputs
from worker.unlearning.samples import classes

BINS, RESAMPLES = 15, 200

WORDS = {
    "test_accuracy": "drop of test accuracy",
    "class_accuracy": "drop of accuracy in a retained class",
    "nll": "rise of the mean loss on retained classes (NLL, nats)",
    "ece": "rise of the calibration error on retained classes (ECE)",
    "concept_removed": "accuracy on the removed class",
}
"""Each guard as the reason of a verdict names it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much utility a job may cost."""

    max_test_accuracy_drop: float = 0.03
    max_class_accuracy_drop: float = 0.10
    max_nll_increase: float = 0.5
    """In nats."""

    max_ece_increase: float = 0.1


def guards(
    before: Observed, after: Observed, *, lost: Tensor, removing: bool, limits: Limits
) -> tuple[Test, ...]:
    """Drops of accuracy, rises of loss and calibration error, and accuracy left on a removed class;
    omits a guard without samples.

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
        _nll(*kept, limit=limits.max_nll_increase),
        _ece(*kept, limit=limits.max_ece_increase),
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


def _nll(before: Outputs, after: Outputs, *, limit: float) -> Test | None:
    """Whether the mean loss on the same samples rose by more than the limit; None for fewer than
    two samples.

    Fails when the lower bound of the mean paired difference, by its standard error, is above the
    limit.
    """
    count = len(before.labels)
    if count < 2:
        return None
    rise = after.losses() - before.losses()  # (N,)
    mean, error = rise.mean().item(), rise.std().item() / count**0.5
    low = mean - NormalDist().inv_cdf(1 - ALPHA) * error
    p_value = NormalDist().cdf((limit - mean) / error) if error else float(mean <= limit)
    return _one_sided("nll", mean, low, p_value, limit, 0.0, count)


def _ece(before: Outputs, after: Outputs, *, limit: float) -> Test | None:
    """Whether the expected calibration error on the same samples rose by more than the limit; None
    without samples.

    Fails when the lower bound of the rise, by a paired bootstrap, is above the limit.

    Source:
        Guo et al., "On Calibration of Modern Neural Networks", 2017, arXiv:1706.04599, with 15
        bins; the test is our reconstruction.
    """
    count = len(before.labels)
    if count == 0:
        return None
    seen = [_confidence(outputs) for outputs in (before, after)]
    everything = torch.arange(count)

    def rise(chosen: Tensor) -> float:
        old, new = (_calibration_error(bins[chosen], off[chosen]) for bins, off in seen)
        return new - old

    generator = torch.Generator().manual_seed(0)
    drawn = torch.tensor(
        [rise(torch.randint(count, (count,), generator=generator)) for _ in range(RESAMPLES)]
    )
    low = drawn.quantile(ALPHA).item()
    p_value = (1 + int((drawn <= limit).sum())) / (1 + RESAMPLES)
    return _one_sided("ece", rise(everything), low, p_value, limit, 0.0, count)


def _confidence(outputs: Outputs) -> tuple[Tensor, Tensor]:
    """(N,) the bin of each answer's confidence, and (N,) confidence less correctness."""
    sure = outputs.logits.double().softmax(1).amax(1)
    return (sure * BINS).long().clamp_max(BINS - 1), sure - _right(outputs)


def _calibration_error(bins: Tensor, off: Tensor) -> float:
    """Mean distance between confidence and accuracy over the bins, by their numbers of samples."""
    return (off.new_zeros(BINS).index_add_(0, bins, off).abs().sum() / len(off)).item()


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
