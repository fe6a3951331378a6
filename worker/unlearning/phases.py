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

from worker.unlearning.alignment import Eigenspace, alignment
from worker.unlearning.config import Config
from worker.unlearning.errors import NotFinite
from worker.unlearning.losses import alignment_loss, distillation_loss
from worker.unlearning.network import Network
from worker.unlearning.samples import Samples, batch_indices, class_balanced, classes

MOMENTUM = 0.9
"""Of the recover phase. The forget phase is plain SGD: momentum would carry it too far."""


GRADIENT_NORM, GRADIENT_NORM_BATCH_NORMALISED = 1.0, 10.0
"""Longer gradients are cut to this. Batch normalisation bears long steps, and needs them: norms
of 10 falling to 3 were measured on a CNN. A small transformer diverged with such steps."""


@dataclass(frozen=True, slots=True)
class Goal:
    """Where the forget samples shall end up."""

    answers: Tensor
    """(F, C) probabilities."""

    raise_only: Tensor
    """(F,) bool: alignment may rise to that of the peers, but is never pushed down."""

    peers: "Peers"
    """Unseen samples to be aligned like."""

    def at(self, chosen: Tensor) -> "Goal":
        """The goal of the forget samples at these indices."""
        return Goal(self.answers[chosen], self.raise_only[chosen], self.peers)


class Peers:
    """Hold-out samples that keep forget samples company, class by class."""

    def __init__(self, holdout: Samples, lost: Tensor) -> None:
        """Let each class stand beside its own hold-out samples.

        A lost class, or one that the hold-out lacks, stands beside those of all the classes
        that stay; beside the whole hold-out when it has none of these.

        Args:
            lost: (C,) bool, classes the model shall no longer know.
        """
        self.inputs = holdout.inputs
        staying = (~lost[holdout.labels]).nonzero().squeeze(1)
        others = staying if len(staying) else torch.arange(len(holdout))
        self._of_class = [others] * len(lost)
        for label in classes(holdout.labels[staying]):
            self._of_class[label] = (holdout.labels == label).nonzero().squeeze(1)

    def draw(self, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Inputs of one random peer for each label (N,)."""
        chosen = torch.empty_like(labels)
        for label in classes(labels):
            peers, mine = self._of_class[label], labels == label
            drawn = torch.randint(len(peers), (int(mine.sum()),), generator=generator)
            chosen[mine] = peers[drawn]
        return self.inputs[chosen]


def forget_phase(
    network: Network,
    forget: Samples,
    goal: Goal,
    space: Eigenspace,
    config: Config,
    cycle: int,
    generator: torch.Generator,
) -> tuple[float, float]:
    """Move the forget samples towards their goal; mean alignment and distillation loss.

    Half of each batch are peers, more if the forget set does not fill its half. Their DA is what
    the forget samples' DA is pulled to: measured in the same batch, it shares the batch
    normalisation. They also keep the batch from being a single class, or a single sample.
    """
    network.model.train()
    optimizer = torch.optim.SGD(network.model.parameters(), lr=config.forget_lr)
    weights = torch.tensor([config.alignment_weight, config.distillation_weight])
    weights, sums = weights.to(network.device), torch.zeros(2, device=network.device)
    steps = list(_epochs(len(forget), config, generator))
    for step, chosen in enumerate(steps):
        _anneal(optimizer, config.forget_lr, cycle - 1 + step / len(steps), config.cycles)
        losses = _forget_losses(
            network, forget.select(chosen), goal.at(chosen), space, config, generator
        )
        _step(network, optimizer, weights @ losses)
        sums += losses.detach()
    _require_finite(network, sums, cycle)
    alignment_mean, distillation_mean = (sums / len(steps)).tolist()
    return alignment_mean, distillation_mean


def _forget_losses(
    network: Network,
    batch: Samples,
    goal: Goal,
    space: Eigenspace,
    config: Config,
    generator: torch.Generator,
) -> Tensor:
    """(2,) alignment and distillation loss of a batch of forget samples."""
    count = len(batch)
    repeats = max(config.batch_size // count - 1, 1)
    peers = goal.peers.draw(batch.labels.repeat(repeats), generator)
    features, logits = network(torch.cat([batch.inputs, peers]))
    aims = alignment(features[count:].detach(), space).view(repeats, count).mean(0)
    raise_only, answers = goal.raise_only.to(aims.device), goal.answers.to(logits)
    return torch.stack(
        [
            alignment_loss(features[:count], space, aims, raise_only),
            distillation_loss(logits[:count], answers),
        ]
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
        _, logits = network(retain.inputs[chosen])
        loss = F.cross_entropy(logits, retain.labels[chosen].to(logits.device))
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
