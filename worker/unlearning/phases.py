"""The two phases of a cycle: forget, then recover. Each changes the network in place.

Shapes: F forget samples, C classes. The alternation is that of Seo, Kim, Han, WACV 2025
(arXiv:2407.17710); the steps are our reconstruction.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worker.unlearning.alignment import Eigenspace
from worker.unlearning.config import Config
from worker.unlearning.errors import NotFinite
from worker.unlearning.losses import alignment_loss, distillation_loss
from worker.unlearning.network import Network
from worker.unlearning.samples import Samples, batch_indices, class_balanced, moved, rows

MOMENTUM = 0.9
"""Of the recover phase. The forget phase is plain SGD: momentum would carry it too far."""


GRADIENT_NORM, GRADIENT_NORM_BATCH_NORMALISED = 1.0, 10.0
"""Longer gradients are cut to this. Batch normalisation bears long steps, and needs them: norms
of 10 falling to 3 were measured on a CNN. A small transformer diverged with such steps."""


@dataclass(frozen=True, slots=True)
class Goal:
    """Samples to be changed, and where they shall end up."""

    samples: Samples
    """The forget set; where a class leaves, calibration samples of that class too."""

    answers: Tensor
    """(N, C) probabilities."""

    alignments: Tensor
    """(N,) DA of unseen samples of the same class."""

    raise_only: Tensor
    """(N,) bool: alignment may rise to that of unseen samples, but is never pushed down."""

    space: Eigenspace


class Company:
    """Retain samples that stand beside forget samples in a batch, each in its turn."""

    def __init__(self, retain: Samples, generator: torch.Generator) -> None:
        self._retain = retain
        self._generator = generator
        self._waiting = torch.empty(0, dtype=torch.int64)

    def draw(self, count: int) -> Samples:
        """The next `count` samples, in random order over and over."""
        while len(self._waiting) < count:
            order = torch.randperm(len(self._retain), generator=self._generator)
            self._waiting = torch.cat([self._waiting, order])
        drawn, self._waiting = self._waiting[:count], self._waiting[count:]
        return self._retain.select(drawn)


def forget_phase(
    network: Network,
    goal: Goal,
    company: Company,
    config: Config,
    cycle: int,
    generator: torch.Generator,
) -> tuple[float, float]:
    """Move samples towards their goal; mean alignment and distillation loss.

    Retain samples in each batch, under cross-entropy, keep the damage small, the statistics of
    batch normalisation those of a mix, and the batch from being a single class or a single sample.
    """
    network.model.train()
    optimizer = torch.optim.SGD(network.model.parameters(), lr=config.forget_lr)
    goal = _moved(goal, network.device)
    weights = torch.tensor(
        [
            config.alignment_weight,
            config.distillation_weight,
            config.retain_weight,
        ]
    ).to(network.device)
    sums = torch.zeros(3, device=network.device)
    steps = list(_epochs(len(goal.samples), config, generator))
    for step, chosen in enumerate(steps):
        _anneal(optimizer, config.forget_lr, cycle - 1 + step / len(steps), config.cycles)
        beside = company.draw(config.batch_size * 3 // 4 - len(chosen))
        losses = _forget_losses(network, goal, chosen, beside)
        _step(network, optimizer, weights @ losses)
        sums += losses.detach()
    _require_finite(network, sums, cycle)
    alignment_mean, distillation_mean, *_ = (sums / len(steps)).tolist()
    return alignment_mean, distillation_mean


def _forget_losses(network: Network, goal: Goal, chosen: Tensor, beside: Samples) -> Tensor:
    """(3,) alignment and distillation loss of a batch, and cross-entropy of its company."""
    count = len(chosen)
    parts = (rows(goal.samples.inputs, chosen), beside.inputs)
    features, logits = network(torch.cat([moved(part, network.device) for part in parts]))
    aims, rising = rows(goal.alignments, chosen), rows(goal.raise_only, chosen)
    return torch.stack(
        [
            alignment_loss(features[:count], goal.space, aims, rising),
            distillation_loss(logits[:count], rows(goal.answers, chosen)),
            F.cross_entropy(logits[count:], moved(beside.labels, logits.device)),
        ]
    )


def _moved(goal: Goal, device: torch.device) -> Goal:
    """The goal on the model's device, once for the phase and not at each step."""
    return Goal(
        goal.samples,
        goal.answers.to(device),
        goal.alignments.to(device),
        goal.raise_only.to(device),
        goal.space.to(device),
    )


def recover_phase(
    network: Network, retain: Samples, config: Config, cycle: int, generator: torch.Generator
) -> float:
    """Repair what forgetting damaged, on a class-balanced draw; mean cross-entropy in nats."""
    network.model.train()
    optimizer = torch.optim.SGD(
        network.model.parameters(), lr=config.recover_lr, momentum=MOMENTUM, nesterov=True
    )
    steps = list(_draws(retain.labels, config, generator))
    total = torch.zeros((), device=network.device)
    for step, chosen in enumerate(steps):
        _anneal(optimizer, config.recover_lr, cycle - 1 + step / len(steps), config.cycles)
        _, logits = network(rows(retain.inputs, chosen))
        loss = F.cross_entropy(logits, moved(retain.labels[chosen], logits.device))
        _step(network, optimizer, loss)
        total += loss.detach()
    _require_finite(network, total, cycle)
    return total.item() / len(steps)


def _epochs(count: int, config: Config, generator: torch.Generator) -> Iterator[Tensor]:
    for _ in range(config.forget_epochs):
        yield from batch_indices(count, config.batch_size // 2, generator)


def _draws(labels: Tensor, config: Config, generator: torch.Generator) -> Iterator[Tensor]:
    """Batches of reservoir indices, class-balanced draw upon draw until the budget is spent."""
    left = config.recover_samples
    while left > 0:
        drawn = class_balanced(labels, left, generator)
        for chosen in batch_indices(len(drawn), config.batch_size, generator):
            yield drawn[chosen]
        left -= len(drawn)


def _anneal(optimizer: torch.optim.Optimizer, lr: float, done: float, cycles: int) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr * (1 + math.cos(math.pi * done / cycles)) / 2


def _step(network: Network, optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]  # torch
    normalised = any(
        isinstance(m, nn.modules.batchnorm._BatchNorm) for m in network.model.modules()
    )
    longest = GRADIENT_NORM_BATCH_NORMALISED if normalised else GRADIENT_NORM
    torch.nn.utils.clip_grad_norm_(network.model.parameters(), longest)
    optimizer.step()


def _require_finite(network: Network, losses: Tensor, cycle: int) -> None:
    if not losses.isfinite().all():
        raise NotFinite(f"loss became non-finite in cycle {cycle}")
    if not all(weight.isfinite().all() for weight in network.model.state_dict().values()):
        raise NotFinite(f"a weight became non-finite in cycle {cycle}")
