"""The two phases of a cycle: forget, then recover. Each changes the network in place.

Shapes: F forget samples, C classes. The alternation is that of Seo, Kim, Han, WACV 2025
(arXiv:2407.17710); the steps are our reconstruction.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from worker.unlearning.alignment import Eigenspace
from worker.unlearning.config import Config
from worker.unlearning.errors import NotFinite
from worker.unlearning.losses import alignment_loss, distillation_loss
from worker.unlearning.network import Network
from worker.unlearning.samples import Samples, batch_indices, class_balanced

MOMENTUM = 0.9
"""Of the recover phase. The forget phase is plain SGD: momentum would carry it too far."""


@dataclass(frozen=True, slots=True)
class Goal:
    """Where the forget samples shall end up in one cycle."""

    answers: Tensor
    """(F, C) probabilities."""

    da: Tensor
    """(F,) dimensional alignment, in [0, 1]."""

    raise_only: Tensor
    """(F,) bool: the alignment may rise to its goal but is never pushed down."""


def forget_phase(
    network: Network,
    forget: Samples,
    retain: Samples,
    goal: Goal,
    space: Eigenspace,
    config: Config,
    cycle: int,
    generator: torch.Generator,
) -> tuple[float, float]:
    """Move the forget samples towards their goal; mean alignment and distillation loss.

    Each batch carries retain samples as company: no loss comes from them, but batch
    normalisation sees a mix rather than one class, or a single sample.
    """
    network.model.train()
    device = network.device
    optimizer = torch.optim.SGD(network.model.parameters(), lr=config.forget_lr)
    steps = list(_epochs(len(forget), config, generator))
    sums = torch.zeros(2, device=device)
    for step, chosen in enumerate(steps):
        _anneal(optimizer, config.forget_lr, cycle - 1 + step / len(steps), config.cycles)
        company = torch.randint(len(retain), (_company(len(chosen), config),), generator=generator)
        inputs = torch.cat([forget.inputs[chosen], retain.inputs[company]])
        features, logits = (output[: len(chosen)] for output in network(inputs))
        losses = torch.stack([
            alignment_loss(
                features, space, goal.da[chosen].to(features), goal.raise_only[chosen].to(device)
            ),
            distillation_loss(logits, goal.answers[chosen].to(logits)),
        ])
        weights = torch.tensor([config.alignment_weight, config.distillation_weight], device=device)
        _step(optimizer, weights @ losses)
        sums += losses.detach()
    _require_finite(network, sums, cycle)
    alignment_mean, distillation_mean = (sums / len(steps)).tolist()
    return alignment_mean, distillation_mean


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
        _, logits = network(retain.inputs[chosen])
        loss = F.cross_entropy(logits, retain.labels[chosen].to(logits.device))
        _step(optimizer, loss)
        total += loss.detach()
    _require_finite(network, total, cycle)
    return total.item() / len(steps)


def _epochs(count: int, config: Config, generator: torch.Generator) -> Iterator[Tensor]:
    for _ in range(config.forget_epochs):
        yield from batch_indices(count, config.batch_size, generator)


def _draws(labels: Tensor, config: Config, generator: torch.Generator) -> Iterator[Tensor]:
    """Batches of reservoir indices, class-balanced draw upon draw until the budget is spent."""
    left = config.recover_samples
    while left > 0:
        drawn = class_balanced(labels, left, generator)
        for chosen in batch_indices(len(drawn), config.batch_size, generator):
            yield drawn[chosen]
        left -= len(drawn)


def _company(count: int, config: Config) -> int:
    return config.batch_size - count


def _anneal(optimizer: torch.optim.Optimizer, lr: float, done: float, cycles: int) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr * (1 + math.cos(math.pi * done / cycles)) / 2


def _step(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]  # torch
    optimizer.step()


def _require_finite(network: Network, losses: Tensor, cycle: int) -> None:
    if not losses.isfinite().all():
        raise NotFinite(f"loss became non-finite in cycle {cycle}")
    if not all(weight.isfinite().all() for weight in network.model.state_dict().values()):
        raise NotFinite(f"a weight became non-finite in cycle {cycle}")
