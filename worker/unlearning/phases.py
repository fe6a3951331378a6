"""The two phases of a cycle: forget, then recover. Each changes the network in place.

Shapes: F forget samples, C classes. The alternation comes from Seo, Kim, Han, WACV 2025
(arXiv:2407.17710); the steps are our reconstruction.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

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
from worker.unlearning.samples import batch_indices, class_balanced, moved, rows
from worker.unlearning.sgd import SGD

MOMENTUM = 0.9
"""Momentum of the recover phase. The forget phase is plain SGD: momentum would carry it too far."""


GRADIENT_NORM, GRADIENT_NORM_BATCH_NORMALISED = 1.0, 10.0
"""Gradients are clipped to this norm. Batch normalisation tolerates long steps and needs them:
norms of 10 falling to 3 were measured on a CNN. A small transformer diverged with such steps."""


AVERAGED = 0.8
"""Share of the steps of a recover phase, its last, of which the mean of the weights is taken."""

FURTHEST = 6.0
"""The shift never exceeds so many nats, at which a class has hardly any probability left."""


class RetainCompanions:
    """Retain companions: samples that share a batch with forget samples, each in turn."""

    def __init__(self, retain: StemOutputs, answers: Tensor, generator: torch.Generator) -> None:
        self._retain, self._answers = retain, answers
        self._generator = generator
        self.waiting = torch.empty(0, dtype=torch.int64)
        """Indices of the next companions."""

    def draw(self, count: int) -> tuple[Tensor, Tensor]:
        """Stem outputs of the next `count` samples and the answers to them, in random order,
        cycling through all."""
        while len(self.waiting) < count:
            order = torch.randperm(len(self._retain), generator=self._generator)
            self.waiting = torch.cat([self.waiting, order])
        drawn, self.waiting = self.waiting[:count], self.waiting[count:]
        return self._retain.inputs(drawn), rows(self._answers, drawn)


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What a forget phase did."""

    loss_alignment: float
    """Mean over its steps."""

    loss_distillation: float
    """The same, in nats."""

    shift: float
    """Nats, at its end."""

    excess: float
    """How far the membership AUC of its batches was above 1/2, in its second half, among unseen
    samples as hard as they are."""


def forget_phase(
    network: Network,
    goal: Goal,
    companions: RetainCompanions,
    config: Config,
    cycle: int,
    generator: torch.Generator,
    *,
    ceiling: float = math.inf,
) -> Forgotten:
    """Move samples towards their goal.

    Losses of a removed class that are above the ceiling, in nats, are high enough: see
    `class_removal.ceiling_of`.

    The shift follows the membership AUC of the batches. Retain samples in each batch, which are to
    be answered as before, limit the damage, give batch normalisation the statistics of a mix, and
    keep the batch from being a single class or a single sample.
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
    sums, late = torch.zeros(4, device=network.device), torch.zeros((), device=network.device)
    steps = list(_epochs(len(goal.samples), config, generator))
    for step, chosen in enumerate(steps):
        _anneal(
            optimizer, config.forget_lr, min(cycle, config.cycles) - 1 + step / len(steps), config
        )
        beside = companions.draw(config.batch_size * 5 // 8 - len(chosen))
        losses, excess = _forget_losses(network, goal, chosen, beside, ceiling, config)
        take_step(network, optimizer, weights @ losses)
        sums += losses.detach()
        goal = _pushed(goal, excess + config.overshoot, len(chosen), config)
        if step >= len(steps) // 2:
            late += excess
    require_finite(network, sums, f"cycle {cycle}")
    alignment_mean, distillation_mean, *_ = (sums / len(steps)).tolist()
    left = late.item() / (len(steps) - len(steps) // 2)
    return Forgotten(alignment_mean, distillation_mean, goal.shift.item(), left)


def _forget_losses(
    network: Network,
    goal: Goal,
    chosen: Tensor,
    beside: tuple[Tensor, Tensor],
    ceiling: float,
    config: Config,
) -> tuple[Tensor, Tensor]:
    """(4,) for a batch: alignment loss, distillation loss, that of its companions, and the
    distance of its losses from those of unseen samples; and the excess of its membership AUC."""
    inputs, answers = beside
    features, logits = _together(network, goal, chosen, inputs)
    count = len(chosen)
    labels = moved(goal.samples.labels[chosen], logits.device)
    losses = F.cross_entropy(logits[:count], labels, reduction="none")
    mine = goal.forgotten[chosen].nonzero().squeeze(1)
    excess = surer_by(rows(losses, _groups(goal, chosen)[0]).detach(), goal.unseen_losses)
    shift = _shift(goal, excess + config.overshoot, count, config)
    told = goal.targets(chosen[mine], shift)
    parts = torch.stack(
        [
            _alignment(features, goal, chosen),
            distillation_loss(rows(logits, mine), told),
            distillation_loss(logits[count:], answers),
            _membership(losses, goal, chosen, ceiling),
        ]
    )
    return parts, excess


def surer_by(losses: Tensor, unseen: Tensor) -> Tensor:
    """() how far the membership AUC of these losses (n,) is above 1/2, among unseen ones (M,); 0
    without samples."""
    if not len(losses) or not len(unseen):
        return losses.new_zeros(())
    lower = (losses[:, None] < unseen).float() + (losses[:, None] == unseen).float() / 2
    return lower.mean() - 0.5


def _pushed(goal: Goal, excess: Tensor, count: int, config: Config) -> Goal:
    """The goal, its shift one step further: an integral controller of membership AUC.

    Few samples say little about the AUC, so a step is shrunk by n / (n + 10).

    Distillation leaves a part of a memory, and how much depends on the number of samples and of
    steps; the shift takes as much as it finds. Never negative: nothing is taught again. Our
    reconstruction.
    """
    step = config.push_rate * excess * count / (count + 10)
    return replace(goal, shift=(goal.shift + step).clamp(0, FURTHEST))


def _shift(goal: Goal, excess: Tensor, count: int, config: Config) -> Tensor:
    """() nats: what was found to be needed so far, and a push in proportion to the excess."""
    return (goal.shift + config.push * excess * count / (count + 10)).clamp(0, FURTHEST)


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


def recover_count(damage: float, config: Config) -> int:
    """How many samples a recover phase takes to repair a damage, in nats; see `Config`."""
    wanted = config.recover_least + config.recover_gain * max(damage, 0.0)
    return round(min(wanted, config.recover_most))


def rehearsal(
    labels: Tensor, config: Config, generator: torch.Generator, left: int
) -> list[Tensor]:
    """Batches of reservoir indices for a recover phase, `left` in all: class-balanced draws.

    A smaller reservoir is repeated.

    Args:
        labels: (R,) of the reservoir.
    """
    batches = []
    while left > 0:
        drawn = class_balanced(labels, left, generator)
        batches += [drawn[b] for b in batch_indices(len(drawn), config.batch_size, generator)]
        left -= len(drawn)
    return batches


def recover_phase(
    network: Network,
    goal: Goal,
    retain: StemOutputs,
    answers: Tensor,
    steps: list[Tensor],
    config: Config,
    cycle: int,
    generator: torch.Generator,
) -> tuple[float, float]:
    """Repair what forgetting damaged, on these batches of retain samples; mean distance from the
    answers (R, C) in nats, and the shift in the end.

    Forget samples accompany them, `Config.held` at a time, and are held where they are: rehearsal
    would move them away from unseen samples again. The rate stays high, and the weights end as the
    mean of those of the last steps: a few falling steps repaired less.

    Source: Izmailov et al., "Averaging Weights Leads to Wider Optima and Better Generalization",
    2018, arXiv:1803.05407; within a single phase, our reconstruction.
    """
    network.train()
    parameters: list[Tensor] = [p for p in network.model.parameters() if p.requires_grad]
    means, counted = [torch.zeros_like(each) for each in parameters], 0
    optimizer = SGD(network.model.parameters(), config.recover_lr, momentum=MOMENTUM)
    goal = goal.to(network.device)
    turns = _turns(len(goal.samples), config.held, generator)
    total = torch.zeros((), device=network.device)
    for step, (chosen, held) in enumerate(zip(steps, turns, strict=False)):
        features, logits = _together(network, goal, held, retain.inputs(chosen))
        loss = distillation_loss(logits[len(held) :], rows(answers, chosen))
        held_loss, excess = _held(features, logits[: len(held)], goal, held, config)
        take_step(network, optimizer, loss + held_loss)
        goal = _pushed(goal, excess + config.overshoot, len(held), config)
        total += loss.detach()
        if step >= (1 - AVERAGED) * (len(steps) - 1):
            counted += 1
            torch._foreach_lerp_(means, [each.detach() for each in parameters], 1 / counted)
    with torch.no_grad():
        torch._foreach_copy_(parameters, means)
    require_finite(network, total, f"cycle {cycle}")
    return total.item() / len(steps), goal.shift.item()


def _held(
    features: Tensor, logits: Tensor, goal: Goal, held: Tensor, config: Config
) -> tuple[Tensor, Tensor]:
    """() what keeps these forget samples where they are, and the excess of their AUC."""
    mine = goal.forgotten[held].nonzero().squeeze(1)
    losses = F.cross_entropy(
        logits, moved(goal.samples.labels[held], logits.device), reduction="none"
    )
    excess = surer_by(rows(losses, _groups(goal, held)[0]).detach(), goal.unseen_losses)
    shift = _shift(goal, excess + config.overshoot, len(held), config)
    answers = goal.targets(held[mine], shift)
    told = _unlearned(
        rows(logits, mine), rows(losses, mine), answers, goal.samples.labels[held[mine]]
    )
    aligned = _alignment(features, goal, held)
    return config.alignment_weight * aligned + config.hold_weight * told, excess


def _unlearned(logits: Tensor, losses: Tensor, answers: Tensor, labels: Tensor) -> Tensor:
    """() distance of those samples from their target answers (n, C) that are surer than these.

    The others are left alone: rehearsing what was learned of other samples may correct a wrong
    label further than its target, which still holds some of it, and nothing is taught again.
    """
    likely = answers.gather(1, moved(labels, answers.device)[:, None]).squeeze(1)
    surer = losses.detach() < -likely.log()
    each = F.kl_div(logits.log_softmax(1), answers, reduction="none").sum(1)
    return (each * surer).sum() / max(len(logits), 1)


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
