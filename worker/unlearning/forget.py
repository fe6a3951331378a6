"""The algorithm: alternate forgetting and recovering, and watch the alignment.

Shapes: F forget samples, C classes. The scheme is that of Seo, Kim, Han, WACV 2025
(arXiv:2407.17710); every formula, weight and rate is our reconstruction.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from worker.unlearning import targets
from worker.unlearning.alignment import Eigenspace, Moments, eigenspace
from worker.unlearning.config import Config, Objective
from worker.unlearning.errors import NothingStays
from worker.unlearning.evaluation import (
    Outputs,
    accuracy,
    default_k,
    measured_gap,
    require_samples,
    retain_moments,
    retain_weights,
)
from worker.unlearning.network import Network
from worker.unlearning.phases import Goal, Peers, forget_phase, recover_phase
from worker.unlearning.samples import Samples, class_balanced


@dataclass(frozen=True, slots=True, kw_only=True)
class CycleScores:
    """How the network stands after a cycle; accuracies and DA are fractions in [0, 1].

    Measured on at most `Config.scoring_samples` of each set.
    """

    cycle: int
    """From 1."""

    da_forget: float
    da_holdout: float
    da_gap: float
    da_gap_low: float | None
    da_gap_high: float | None
    loss_alignment: float
    """Mean over the steps of this cycle's forget phase, before its weight."""

    loss_distillation: float
    """The same, in nats."""

    loss_retain: float
    """Mean cross-entropy over the steps of this cycle's recover phase, in nats."""

    forget_accuracy: float
    retain_accuracy: float
    holdout_accuracy: float | None
    """On hold-out samples of the classes that stay."""


@dataclass(frozen=True, slots=True)
class _View:
    """What is looked at between cycles."""

    forget: Outputs
    retain: Outputs
    holdout: Outputs
    space: Eigenspace


def unlearn(
    network: Network,
    *,
    forget: Samples,
    retain: Samples,
    holdout: Samples,
    moments: Moments,
    class_counts: Tensor,
    config: Config,
    on_cycle: Callable[[CycleScores], None],
) -> nn.Module:
    """Return a copy of the model that behaves as if never trained on the forget set.

    The model given is left as it is. On the CPU the same arguments give the same weights.

    Args:
        retain: a class-balanced reservoir of the retain set, not all of it.
        holdout: labelled samples never trained on; no gradient comes from them.
        moments: of the retain features of the original, without the forget set.
        class_counts: (C,) how many retain samples each class has; 0 for a class that leaves.
        on_cycle: called after each cycle; what it raises stops the run.

    Raises:
        NotFinite: a loss or a weight became NaN or infinite, and in which cycle; or the model
            given has such outputs already.
        NothingStays: no class would be left to keep.
        ValueError: a set is empty.
    """
    require_samples(forget=forget, retain=retain, holdout=holdout)
    lost = _lost(forget, class_counts, config.objective)
    generator = torch.Generator().manual_seed(config.seed)
    scored = [_scored(samples, config, generator) for samples in (forget, retain, holdout)]
    answers = _answers(network, forget, scored[-1], lost, config)
    goal = Goal(answers, lost[forget.labels], Peers(holdout, lost))
    space = eigenspace(moments, k=_k(class_counts, config))
    changed = network.copy()
    changed.model.requires_grad_(True)
    with torch.random.fork_rng(devices=[d for d in [changed.device] if d.type == "cuda"]):
        torch.manual_seed(config.seed)  # dropout
        for cycle in range(1, config.cycles + 1):
            losses = forget_phase(changed, forget, goal, space, config, cycle, generator)
            loss_retain = recover_phase(changed, retain, config, cycle, generator)
            view = _look(changed, scored, class_counts, config)
            space = view.space
            on_cycle(_scores(cycle, view, class_counts, (*losses, loss_retain), config.seed))
    changed.model.zero_grad()
    return changed.model.eval()


def _lost(forget: Samples, class_counts: Tensor, objective: Objective) -> Tensor:
    """(C,) bool: classes the model shall no longer know."""
    lost = class_counts.cpu() == 0
    if objective is Objective.REMOVE_CLASS:
        lost[forget.labels] = True
    if lost.all():
        raise NothingStays("no class would stay; train a new model instead")
    return lost


def _answers(
    network: Network, forget: Samples, holdout: Samples, lost: Tensor, config: Config
) -> Tensor:
    """(F, C) probabilities: calibrated and masked targets, mixed; lost classes only masked."""
    original = Outputs.of(network, forget, config.batch_size)
    unseen = Outputs.of(network, holdout, config.batch_size)
    masked = targets.masked(original.logits, forget.labels, lost)
    calibrated = targets.calibrated(original.logits, forget.labels, unseen.logits, unseen.labels)
    share = targets.masked_shares(unseen.logits, unseen.labels, overshoot=config.masked_overshoot)
    share = torch.where(lost, 1.0, share)[forget.labels][:, None]  # (F, 1)
    return share * masked + (1 - share) * calibrated


def _scored(samples: Samples, config: Config, generator: torch.Generator) -> Samples:
    return samples.select(class_balanced(samples.labels, config.scoring_samples, generator))


def _k(class_counts: Tensor, config: Config) -> int:
    return default_k(class_counts) if config.k is None else config.k


def _look(network: Network, scored: list[Samples], class_counts: Tensor, config: Config) -> _View:
    """Outputs of the three sets, and the eigenspace of the network as it is now."""
    forget, retain, holdout = (Outputs.of(network, s, config.batch_size) for s in scored)
    moments = retain_moments(retain, class_counts)
    return _View(forget, retain, holdout, eigenspace(moments, k=_k(class_counts, config)))


def _scores(
    cycle: int,
    view: _View,
    class_counts: Tensor,
    losses: tuple[float, float, float],
    seed: int,
) -> CycleScores:
    da_forget, da_holdout, gap = measured_gap(view.forget, view.holdout, view.space, seed)
    staying = view.holdout.select(class_counts[view.holdout.labels] > 0)
    return CycleScores(
        cycle=cycle,
        da_forget=da_forget,
        da_holdout=da_holdout,
        da_gap=gap.value,
        da_gap_low=gap.low,
        da_gap_high=gap.high,
        loss_alignment=losses[0],
        loss_distillation=losses[1],
        loss_retain=losses[2],
        forget_accuracy=accuracy(view.forget) or 0.0,
        retain_accuracy=accuracy(view.retain, retain_weights(view.retain.labels, class_counts))
        or 0.0,
        holdout_accuracy=accuracy(staying),
    )
