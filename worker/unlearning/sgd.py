"""Stochastic gradient descent with the steps of torch.optim.SGD, bit for bit, and a quick start.

The first torch.optim.Optimizer of a process imports torch's compiler: half of what a job's process
costs before its work begins, for something that no job uses. The function under it does not.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.optim.sgd import sgd


class SGD:
    """Moves parameters that have a gradient; with momentum, as Nesterov does."""

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
        """Move every parameter that has a gradient once."""
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
