"""Stochastic gradient descent, bit for bit the steps of torch.optim.SGD, but quick to start.

The first torch.optim.Optimizer of a process imports torch's compiler: half the cost of a job's
process before its work begins, for something no job uses. The underlying function does not.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.optim.sgd import sgd


class SGD:
    """Updates parameters that have a gradient; momentum, if any, is Nesterov's."""

    def __init__(
        self, parameters: Iterable[nn.Parameter], lr: float, *, momentum: float = 0
    ) -> None:
        self.lr = lr
        self._momentum = momentum
        self._velocities: dict[nn.Parameter, Tensor | None] = dict.fromkeys(parameters)

    def zero_grad(self) -> None:
        for parameter in self._velocities:
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Update every parameter that has a gradient once."""
        gradients = {p: p.grad for p in self._velocities if p.grad is not None}
        velocities = [self._velocities[parameter] for parameter in gradients]
        sgd(
            list(gradients),
            list(gradients.values()),
            velocities,
            has_sparse_grad=any(gradient.is_sparse for gradient in gradients.values()),
            weight_decay=0,
            momentum=self._momentum,
            lr=self.lr,
            dampening=0,
            nesterov=self._momentum > 0,
            maximize=False,
        )
        self._velocities.update(zip(gradients, velocities, strict=True))
