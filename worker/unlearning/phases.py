"""The two phases of a cycle: forget, then recover. Each changes the network in place.

Shapes: F forget samples, C classes. The alternation comes from Seo, Kim, Han, WACV 2025
(arXiv:2407.17710); the steps are our reconstruction.
"""

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worker.unlearning.alignment import standing
from worker.unlearning.config import Config
from worker.unlearning.errors import NotFinite
from worker.unlearning.frozen_stem import StemOutputs
from worker.unlearning.goal import Goal
from worker.unlearning.losses import distillation_loss, membership_loss, standing_loss
from worker.unlearning.network import Network
from worker.unlearning.samples import Samples, batch_indices, class_balanced, moved, rows
from worker.unlearning.sgd import SGD

MOMENTUM = 0.9
"""Momentum of the recover phase. The forget phase is plain SGD: momentum would carry it too far."""


GRADIENT_NORM, GRADIENT_NORM_BATCH_NORMALISED = 1.0, 10.0
"""Gradients are clipped to this norm. Batch normalisation tolerates long steps and needs them:
norms of 10 falling to 3 were measured on a CNN. A small transformer diverged with such steps."""


class RetainCompanions:
    """Retain companions: samples that share a batch with forget samples, each in turn."""

    def __init__(self, retain: StemOutputs, generator: torch.Generator) -> None:
        self._retain = retain
        self._generator = generator
        self.waiting = torch.empty(0, dtype=torch.int64)
        """Indices of the next companions."""

    def draw(self, count: int) -> Samples:
        """Stem outputs of the next `count` samples, in random order, cycling through all."""
        while len(self.waiting) < count:
            order = torch.randperm(len(self._retain), generator=self._generator)
            self.waiting = torch.cat([self.waiting, order])
        drawn, self.waiting = self.waiting[:count], self.waiting[count:]
        return Samples(self._retain.inputs(drawn), self._retain.labels[drawn])


def forget_phase(
    network: Network,
    goal: Goal,
    companions: RetainCompanions,
    config: Config,
    cycle: int,
    generator: torch.Generator,
    *,
    ceiling: float = math.inf,
) -> tuple[float, float]:
    """Move samples towards their goal; mean alignment and distillation loss.

    Losses of a removed class that are above the ceiling, in nats, are high enough: see
    `class_removal.ceiling_of`.

    Retain samples in each batch, under cross-entropy, limit the damage, give batch normalisation
    the statistics of a mix, and keep the batch from being a single class or a single sample.
    """
    network.train()
    optimizer = SGD(network.model.parameters(), config.forget_lr)
    goal = goal.to(network.device)
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
        beside = companions.draw(config.batch_size * 5 // 8 - len(chosen))
        losses = _forget_losses(network, goal, chosen, beside, ceiling)
        take_step(network, optimizer, weights @ losses)
        sums += losses.detach()
    require_finite(network, sums, f"cycle {cycle}")
    alignment_mean, distillation_mean, *_ = (sums / len(steps)).tolist()
    return alignment_mean, distillation_mean


def _forget_losses(
    network: Network, goal: Goal, chosen: Tensor, beside: Samples, ceiling: float
) -> Tensor:
    """(4,) for a batch: alignment loss, distillation loss, cross-entropy of its companions, and the
    distance of its losses from those of unseen samples."""
    features, logits = _together(network, goal, chosen, beside.inputs)
    count = len(chosen)
    labels = moved(goal.samples.labels[chosen], logits.device)
    losses = F.cross_entropy(logits[:count], labels, reduction="none")
    mine = goal.forgotten[chosen].nonzero().squeeze(1)
    return torch.stack(
        [
            _alignment(features, goal, chosen),
            distillation_loss(rows(logits, mine), rows(goal.answers, chosen[mine])),
            F.cross_entropy(logits[count:], moved(beside.labels, logits.device)),
            _membership(losses, goal, chosen, ceiling),
        ]
    )


def _together(
    network: Network, goal: Goal, chosen: Tensor, beside: Tensor
) -> tuple[Tensor, Tensor]:
    """Features and logits of the chosen forget samples, then of their companions."""
    parts = (rows(goal.samples.inputs, chosen), beside)
    return network(torch.cat([moved(part, network.device) for part in parts]))


def _alignment(features: Tensor, goal: Goal, chosen: Tensor) -> Tensor:
    """() distance of the chosen forget samples from unseen ones.

    For retained classes, unseen samples are represented by their distance from retain samples,
    which follow the chosen ones in `features`, so that batch normalisation treats both alike. Only
    the DA is compared there. For a removed class, unseen samples of it are in the batch themselves.
    """
    here = standing(features, goal.space)
    mine, kept = here[: len(chosen)], here[len(chosen) :, 0].detach()
    staying, lost, unseen = _groups(goal, chosen)
    loss = features.new_zeros(())
    if len(staying):
        aim = kept.mean() + rows(goal.offsets, chosen[staying]).mean()
        loss = loss + standing_loss(rows(mine, staying)[:, :1], aim, goal.spread[:1])
    if len(lost) and len(unseen):
        aim = rows(mine, unseen).mean(0).detach()
        loss = loss + standing_loss(rows(mine, lost), aim, goal.spread)
    return loss


def _groups(goal: Goal, chosen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Places among the chosen: forget samples of retained classes, those of removed classes, and
    unseen samples of removed classes."""
    mine, leaving = goal.forgotten[chosen], goal.leaving[chosen]
    masks = (mine & ~leaving, mine & leaving, ~mine)
    staying, lost, unseen = (mask.nonzero().squeeze(1) for mask in masks)
    return staying, lost, unseen


def _membership(losses: Tensor, goal: Goal, chosen: Tensor, ceiling: float) -> Tensor:
    """() distance of the losses (B,) of the chosen forget samples from those of unseen ones.

    For retained classes, from the losses that the goal names; for removed classes, from those of
    the unseen samples in the batch, up to the ceiling.
    """
    staying, lost, unseen = (rows(losses, places) for places in _groups(goal, chosen))
    pairs = [(staying, goal.unseen_losses), (lost.clamp_max(ceiling), unseen.clamp_max(ceiling))]
    return sum(
        (membership_loss(*pair) for pair in pairs if all(map(len, pair))),
        start=losses.new_zeros(()),
    )


def rehearsal(
    labels: Tensor, losses: Tensor, config: Config, generator: torch.Generator
) -> list[Tensor]:
    """Batches of reservoir indices for a recover phase, `Config.recover_samples` in all.

    `Config.hard_share` of them are the samples that the original found hardest, because these are
    lost first when it is changed; the rest is a class-balanced draw from the others. A smaller
    reservoir is repeated.

    Args:
        labels: (R,) of the reservoir.
        losses: (R,) under the original, in nats.

    Source:
        Jiang et al., "Accelerating Deep Learning by Focusing on the Biggest Losers", 2019,
        arXiv:1910.00762, rehearses what has a high loss now; using the original's losses, and only
        for a share, is our reconstruction.
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
    network: Network,
    goal: Goal,
    retain: StemOutputs,
    steps: list[Tensor],
    config: Config,
    cycle: int,
    generator: torch.Generator,
) -> float:
    """Repair what forgetting damaged, on these batches of retain samples; mean cross-entropy in
    nats.

    Forget samples accompany them, `Config.held` at a time, and are kept aligned: rehearsal would
    move them away from unseen samples again.
    """
    network.train()
    optimizer = SGD(network.model.parameters(), config.recover_lr, momentum=MOMENTUM)
    goal = goal.to(network.device)
    turns = _turns(len(goal.samples), config.held, generator)
    total = torch.zeros((), device=network.device)
    for step, (chosen, held) in enumerate(zip(steps, turns, strict=False)):
        _anneal(optimizer, config.recover_lr, cycle - 1 + step / len(steps), config)
        features, logits = _together(network, goal, held, retain.inputs(chosen))
        labels = moved(retain.labels[chosen], logits.device)
        loss = F.cross_entropy(logits[len(held) :], labels)
        take_step(
            network, optimizer, loss + config.alignment_weight * _alignment(features, goal, held)
        )
        total += loss.detach()
    require_finite(network, total, f"cycle {cycle}")
    return total.item() / len(steps)


def _turns(count: int, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Endless batches of the indices 0..count-1."""
    while True:
        yield from batch_indices(count, size, generator)


def _epochs(count: int, config: Config, generator: torch.Generator) -> Iterator[Tensor]:
    for _ in range(config.forget_epochs):
        yield from batch_indices(count, config.forget_batch, generator)


def _anneal(optimizer: SGD, lr: float, done: float, config: Config) -> None:
    if config.anneal:
        optimizer.lr = lr * (1 + math.cos(math.pi * done / config.cycles)) / 2


def take_step(network: Network, optimizer: SGD, loss: Tensor) -> None:
    """Follow the gradient of a loss once, clipped to the norm that such a network tolerates."""
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]  # torch
    normalised = any(
        isinstance(m, nn.modules.batchnorm._BatchNorm) for m in network.model.modules()
    )
    longest = GRADIENT_NORM_BATCH_NORMALISED if normalised else GRADIENT_NORM
    torch.nn.utils.clip_grad_norm_(network.model.parameters(), longest)
    optimizer.step()


def require_finite(network: Network, losses: Tensor, when: str) -> None:
    """Raise NotFinite if a loss or a weight is NaN or infinite."""
    if not losses.isfinite().all():
        raise NotFinite(f"loss became non-finite in {when}")
    if not all(weight.isfinite().all() for weight in network.model.state_dict().values()):
        raise NotFinite(f"a weight became non-finite in {when}")
