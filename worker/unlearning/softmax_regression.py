"""A linear head fitted on fixed features: a convex problem with one answer, to the last bit.

The problem is multinomial logistic regression with an L2 penalty. It starts from zero, adds up in a
fixed order and on one thread, and ends at a fixed tolerance, so its answer depends on the samples
and on nothing else: not on a head that was there before, nor on how samples left, one by one or
together.

Shapes: N samples, B samples of a block, d feature dimensions, C classes.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from worker.unlearning.errors import UnlearningError

BLOCK = 1024
"""Samples added up at a time. It is part of the answer: other blocks round in another way."""

TOLERANCE = 1e-9
"""The largest component of the gradient at the end, in nats, in coordinates in which the problem is
about equally steep in all directions at its start."""

HELD_BYTES = 2**31
"""Features in float64 that are held in memory; more are read again each time. The answer is the
same."""

MOST_STEPS = 200
MOST_TURNS = 500
"""Of the conjugate gradients within a step."""

SUFFICIENT = 1e-4
"""The share of the promised decrease that a step must keep (Armijo)."""

Blocks = Callable[[], Iterable[tuple[Tensor, Tensor]]]
"""Gives all samples, each time in the same order and in blocks of `BLOCK`: features (B, d) in any
floating type, labels (B,) int64."""


@dataclass(frozen=True, slots=True)
class Fit:
    """A fitted head."""

    weight: Tensor
    """(C, d) float64."""

    bias: Tensor | None
    """(C,) float64; None if it was fitted without."""

    loss: float
    """What was minimised: mean cross-entropy in nats, plus the penalty."""

    gradient: float
    """Its largest component at the end; see `TOLERANCE`."""

    steps: int
    """Newton steps."""


def fit(blocks: Blocks, *, classes: int, l2: float, bias: bool = True) -> Fit:
    """The head that minimises mean cross-entropy + l2 / 2 * (sum of all squared parameters).

    The bias is penalised like the weights: so a class without samples, too, has an answer. On one
    kind of processor and with the same version of torch, the same samples in the same order give
    the same bits, whatever the number of threads.

    Args:
        blocks: the samples, at least one.
        l2: above 0, which makes the answer unique.

    Raises:
        UnlearningError: it does not converge.

    Source:
        Newton's method with conjugate gradients (Nocedal and Wright, Numerical Optimization, 2006,
        algorithm 7.1), preconditioned by the Hessian at zero.
    """
    with _one_thread():
        problem = _Problem(blocks, classes, l2, bias)
        point = torch.zeros(problem.width, classes, dtype=torch.float64)
        value, gradient = problem.value_and_gradient(point)
        for steps in range(MOST_STEPS + 1):
            steepness = problem.whitened(gradient).abs().max().item()
            if steepness <= TOLERANCE:
                weight = point[: problem.dimensions].T.contiguous()
                return Fit(weight, point[-1].clone() if bias else None, value, steepness, steps)
            direction = problem.newton_direction(point, gradient, steepness)
            point, value, gradient = problem.stepped(point, value, gradient, direction)
    raise UnlearningError(
        f"The head's fit did not converge within {MOST_STEPS} steps; the penalty `l2` ({l2:g}) is "
        "too small for these features. Register the model with a larger one."
    )


class _Problem:
    """What is minimised. Points and gradients are (d, C), or (d + 1, C) with a bias."""

    def __init__(self, blocks: Blocks, classes: int, l2: float, bias: bool) -> None:
        self._blocks, self._l2, self._bias = blocks, l2, bias
        self._held: list[tuple[Tensor, Tensor]] | None = []
        self._p: list[Tensor] = []
        """(B, C) of each block, at the point of the latest gradient; of blocks that are held."""

        gram, self.count = self._gram()
        self.width = len(gram)
        self.dimensions = self.width - bias
        gram /= self.count * classes  # at zero, every class has the probability 1 / C
        smallest = torch.finfo(torch.float64).eps * gram.diagonal().max().item()
        gram.diagonal().add_(max(l2, self.width * smallest))
        self._factor, failed = torch.linalg.cholesky_ex(gram)  # the Hessian at zero is its square
        if failed or not self._factor.isfinite().all():
            raise UnlearningError(
                "A head cannot be fitted on these features: their values are too large. Register a "
                "network that normalises what enters its head."
            )

    def value_and_gradient(self, point: Tensor) -> tuple[float, Tensor]:
        total, gradient = 0.0, torch.zeros_like(point)
        self._p.clear()
        for features, labels in self._rows():
            log_p = (features @ point).log_softmax(1)  # (B, C)
            total -= log_p.gather(1, labels[:, None]).sum().item()
            p = log_p.exp_()
            if self._held is not None:
                self._p.append(p)
            gradient += features.T @ (p - F.one_hot(labels, p.shape[1]))
        penalty = self._l2 / 2 * point.square().sum().item()
        return total / self.count + penalty, gradient / self.count + self._l2 * point

    def newton_direction(self, point: Tensor, gradient: Tensor, steepness: float) -> Tensor:
        """A direction in which the function falls, near that of Newton, by conjugate gradients."""
        direction, residual = torch.zeros_like(gradient), -gradient
        towards = preconditioned = self._preconditioned(residual)
        energy = start = _inner(residual, preconditioned)
        wanted = min(0.25, steepness**0.5) ** 2 * start
        for _ in range(MOST_TURNS):
            curved = self._curvature(point, towards)
            length = energy / _inner(towards, curved)
            direction = direction + length * towards
            residual = residual - length * curved
            preconditioned = self._preconditioned(residual)
            before, energy = energy, _inner(residual, preconditioned)
            if energy <= wanted:
                break
            towards = preconditioned + energy / before * towards
        return direction

    def stepped(
        self, point: Tensor, value: float, gradient: Tensor, direction: Tensor
    ) -> tuple[Tensor, float, Tensor]:
        """The next point on the way, halving the step until the function falls enough.

        Close to the answer its value does not change any more; there the gradient decides.
        """
        slope, share = _inner(gradient, direction), 1.0
        steepness = _inner(gradient, self._preconditioned(gradient))
        for _ in range(40):
            reached = point + share * direction
            found, turned = self.value_and_gradient(reached)
            flat = abs(found - value) <= 1e-12 * abs(value)
            if found <= value + SUFFICIENT * share * slope or (
                flat and _inner(turned, self._preconditioned(turned)) < steepness
            ):
                return reached, found, turned
            share /= 2
        raise UnlearningError(
            f"The head's fit does not converge; the penalty `l2` ({self._l2:g}) is too small for "
            "these features. Register the model with a larger one."
        )

    def whitened(self, gradient: Tensor) -> Tensor:
        found: Tensor = torch.linalg.solve_triangular(self._factor, gradient, upper=False)
        return found

    def _curvature(self, point: Tensor, direction: Tensor) -> Tensor:
        """The Hessian at `point`, which is that of the latest gradient, times `direction`."""
        product = torch.zeros_like(direction)
        for block, (features, _) in enumerate(self._rows()):
            p = self._p[block] if self._p else (features @ point).log_softmax(1).exp_()  # (B, C)
            along = features @ direction
            product += features.T @ (p * (along - (p * along).sum(1, keepdim=True)))
        return product / self.count + self._l2 * direction

    def _preconditioned(self, residual: Tensor) -> Tensor:
        return torch.cholesky_solve(residual, self._factor)

    def _gram(self) -> tuple[Tensor, int]:
        """The sum of the features' outer products, and N."""
        gram, count = None, 0
        for features, labels in self._widened():
            products = features.T @ features
            gram = products if gram is None else gram + products
            count += len(labels)
            if self._held is not None:
                self._held.append((features, labels))
                if count * len(gram) * features.itemsize > HELD_BYTES:
                    self._held = None
        if gram is None:
            raise UnlearningError("A head cannot be fitted without samples; some must be left.")
        return gram, count

    def _rows(self) -> Iterable[tuple[Tensor, Tensor]]:
        return self._widened() if self._held is None else self._held

    def _widened(self) -> Iterator[tuple[Tensor, Tensor]]:
        for features, labels in self._blocks():
            wide = features.double()
            yield F.pad(wide, (0, 1), value=1.0) if self._bias else wide, labels


def _inner(left: Tensor, right: Tensor) -> float:
    return (left * right).sum().item()


@contextmanager
def _one_thread() -> Iterator[None]:
    """Several threads divide sums among them, so their number would be part of the answer."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
