"""The two phases of a cycle: forget, then recover. Each changes the network in place.

Shapes: F forget samples, C classes. The alternation is that of Seo, Kim, Han, WACV 2025
(arXiv:2407.17710); the steps are our reconstruction.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worker.unlearning.alignment import Eigenspace
from worker.unlearning.config import Config
from worker.unlearning.errors import NotFinite
from worker.unlearning.losses import alignment_loss, distillation_loss, membership_loss
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
    """The forget set, as the stem leaves it; where a class leaves, calibration samples of that
    class too."""

    forgotten: Tensor
    """(N,) bool, on the CPU: the forget set."""

    answers: Tensor
    """(N, C) probabilities."""

    alignments: Tensor
    """(N,) DA of unseen samples of the same class."""

    raise_only: Tensor
    """(N,) bool, on the CPU: of classes that leave. Alignment may rise to that of unseen samples,
    but is never pushed down."""

    space: Eigenspace
    unseen_losses: Tensor
    """(M,) losses of unseen samples as hard as the forget samples whose class stays, in their
    class mix."""


class Company:
    """Retain samples that stand beside forget samples in a batch, each in its turn."""

    def __init__(
        self, retain: Samples, stem: Callable[[Tensor], Tensor], generator: torch.Generator
    ) -> None:
        self._retain = retain
        self._stem = stem
        self._generator = generator
        self.waiting = torch.empty(0, dtype=torch.int64)
        """Indices of those whose turn is next."""

    def draw(self, count: int) -> Samples:
        """What the stem makes of the next `count` samples, in random order over and over."""
        while len(self.waiting) < count:
            order = torch.randperm(len(self._retain), generator=self._generator)
            self.waiting = torch.cat([self.waiting, order])
        drawn, self.waiting = self.waiting[:count], self.waiting[count:]
        return Samples(self._stem(rows(self._retain.inputs, drawn)), self._retain.labels[drawn])


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
    network.train()
    optimizer = torch.optim.SGD(network.model.parameters(), lr=config.forget_lr)
    goal = _moved(goal, network.device)
    weights = torch.tensor(
        [
            config.alignment_weight,
            config.distillation_weight,
            config.retain_weight,
            config.membership_weight,
        ]
    ).to(network.device)
    sums = torch.zeros(4, device=network.device)
    steps = list(_epochs(len(goal.samples), config, generator))
    for step, chosen in enumerate(steps):
        _anneal(optimizer, config.forget_lr, cycle - 1 + step / len(steps), config)
        beside = company.draw(config.batch_size * 5 // 8 - len(chosen))
        losses = _forget_losses(network, goal, chosen, beside)
        _step(network, optimizer, weights @ losses)
        sums += losses.detach()
    _require_finite(network, sums, cycle)
    alignment_mean, distillation_mean, *_ = (sums / len(steps)).tolist()
    return alignment_mean, distillation_mean


def _forget_losses(network: Network, goal: Goal, chosen: Tensor, beside: Samples) -> Tensor:
    """(4,) of a batch: alignment loss, distillation loss, cross-entropy of its company, and how far
    its losses are from those of unseen samples."""
    count = len(chosen)
    parts = (rows(goal.samples.inputs, chosen), beside.inputs)
    features, logits = network(torch.cat([moved(part, network.device) for part in parts]))
    aims, rising = rows(goal.alignments, chosen), moved(goal.raise_only[chosen], network.device)
    labels = moved(goal.samples.labels[chosen], logits.device)
    losses = F.cross_entropy(logits[:count], labels, reduction="none")
    return torch.stack(
        [
            alignment_loss(features[:count], goal.space, aims, rising),
            distillation_loss(logits[:count], rows(goal.answers, chosen)),
            F.cross_entropy(logits[count:], moved(beside.labels, logits.device)),
            _membership(losses, goal, chosen),
        ]
    )


def _membership(losses: Tensor, goal: Goal, chosen: Tensor) -> Tensor:
    """() how far the losses (B,) of the chosen forget samples are from those of unseen ones.

    Where the class stays, from those that the goal names; where it leaves, from those of the unseen
    samples in the batch, which are on the move as well.
    """
    mine, leaving = goal.forgotten[chosen], goal.raise_only[chosen]
    masks = (mine & ~leaving, mine & leaving, ~mine)
    staying, lost, unseen = (rows(losses, mask.nonzero().squeeze(1)) for mask in masks)
    pairs = [(staying, goal.unseen_losses), (lost, unseen)]
    return sum(
        (membership_loss(*pair) for pair in pairs if all(map(len, pair))),
        start=losses.new_zeros(()),
    )


def _moved(goal: Goal, device: torch.device) -> Goal:
    """The goal on the model's device, once for the phase and not at each step."""
    return Goal(
        goal.samples,
        goal.forgotten,
        goal.answers.to(device),
        goal.alignments.to(device),
        goal.raise_only,
        goal.space.to(device),
        goal.unseen_losses.to(device),
    )


def rehearsal(
    labels: Tensor, losses: Tensor, config: Config, generator: torch.Generator
) -> list[Tensor]:
    """Batches of reservoir indices for a recover phase, `Config.recover_samples` in all.

    `Config.hard_share` of them are the samples that the original found hardest, for these are lost
    first when it is changed; the rest are drawn from the others, class-balanced. A smaller
    reservoir is seen over and over.

    Args:
        labels: (R,) of the reservoir.
        losses: (R,) under the original, in nats.

    Source:
        Jiang et al., "Accelerating Deep Learning by Focusing on the Biggest Losers", 2019,
        arXiv:1910.00762, rehearses what has a high loss now; by the losses of the original, and
        only for a share, is our reconstruction.
    """
    order = losses.argsort(descending=True)
    batches, left = [], config.recover_samples
    while left > 0:
        count = min(left, len(labels))
        hard, others = order.tensor_split([round(config.hard_share * count)])
        more = class_balanced(labels[others], count - len(hard), generator)
        drawn = torch.cat([hard, others[more]])
        batches += [drawn[b] for b in batch_indices(len(drawn), config.batch_size, generator)]
        left -= len(drawn)
    return batches


def recover_phase(
    network: Network, retain: Samples, steps: list[Tensor], config: Config, cycle: int
) -> float:
    """Repair what forgetting damaged, on these batches of retain samples; mean cross-entropy in
    nats."""
    network.train()
    optimizer = torch.optim.SGD(
        network.model.parameters(), lr=config.recover_lr, momentum=MOMENTUM, nesterov=True
    )
    total = torch.zeros((), device=network.device)
    for step, chosen in enumerate(steps):
        _anneal(optimizer, config.recover_lr, cycle - 1 + step / len(steps), config)
        _, logits = network(rows(retain.inputs, chosen))
        loss = F.cross_entropy(logits, moved(retain.labels[chosen], logits.device))
        _step(network, optimizer, loss)
        total += loss.detach()
    _require_finite(network, total, cycle)
    return total.item() / len(steps)


def _epochs(count: int, config: Config, generator: torch.Generator) -> Iterator[Tensor]:
    for _ in range(config.forget_epochs):
        yield from batch_indices(count, config.forget_batch, generator)


def _anneal(optimizer: torch.optim.Optimizer, lr: float, done: float, config: Config) -> None:
    if not config.anneal:
        return
    for group in optimizer.param_groups:
        group["lr"] = lr * (1 + math.cos(math.pi * done / config.cycles)) / 2


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
