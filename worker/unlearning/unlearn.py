"""The algorithm: alternate forgetting and recovering, and watch the alignment.

Shapes: F forget samples, C classes. The scheme is that of Seo, Kim, Han, WACV 2025
(arXiv:2407.17710); every formula, weight and rate is our reconstruction.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from worker.unlearning.alignment import (
    Eigenspace,
    Moments,
    eigenspace,
)
from worker.unlearning.class_removal import ceiling_of, lost_classes, silence
from worker.unlearning.config import Config
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
from worker.unlearning.frozen_stem import StemOutputs, divided
from worker.unlearning.goal import Goal, View, answers_as_unseen, goal_of, own_answers
from worker.unlearning.losses import distillation_loss
from worker.unlearning.network import Network
from worker.unlearning.phases import (
    Forgotten,
    RetainCompanions,
    forget_phase,
    recover_count,
    recover_phase,
    rehearsal,
    surer_by,
)
from worker.unlearning.samples import Samples, class_balanced
from worker.unlearning.unseen_answers import as_if_unseen

TRIES, REMEMBERED = 8, 0.02
"""A forget phase is repeated, at most so often, while its batches' membership AUC stays more than
this above its aim: networks without batch normalisation take shorter steps and need more of them.
"""

OUT_OF_SAMPLE = 0.7
"""Share of reference models' predictions in the targets; the rest is the model's own answers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CycleScores:
    """The scores of the network after a cycle; accuracies and DA are fractions in [0, 1].

    Measured on at most `Config.scoring_samples` of each set.
    """

    cycle: int
    """The number of the cycle, from 1."""

    da_forget: float
    da_holdout: float
    da_gap: float
    da_gap_low: float | None
    da_gap_high: float | None
    loss_alignment: float
    """Mean over the steps of this cycle's last forget phase, unweighted."""

    loss_distillation: float
    """The same, in nats."""

    loss_retain: float
    """Mean distance from the answers that retain samples should get, over the steps of this
    cycle's recover phase, in nats."""

    forget_accuracy: float
    retain_accuracy: float
    holdout_accuracy: float | None
    """Accuracy on hold-out samples of retained classes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """The state of a run after a cycle: enough to resume as if it had never stopped.

    The tensors are the ones the run works with: read them before the next cycle begins. There is no
    optimiser state, because each phase starts a new optimiser.
    """

    cycle: int
    """The last completed cycle."""

    finished: bool
    """Whether this was the last cycle."""

    shift: float
    weights: Mapping[str, Tensor]
    """The changed model's weights and buffers, by name."""

    generator: Tensor
    """State of the generator that draws samples, uint8."""

    dropout: Tensor
    """State of torch's generator on the CPU, uint8."""

    device_dropout: Tensor | None
    """The same on the GPU; None if the model is on the CPU."""

    companions: Tensor
    """Indices of the next retain companions, int64."""


def unlearn(
    network: Network,
    *,
    forget: Samples,
    retain: Samples,
    retain_logits: Tensor,
    holdout: Samples,
    moments: Moments,
    class_counts: Tensor,
    config: Config,
    on_cycle: Callable[[CycleScores, State], None],
    predictions: Tensor | None = None,
    ease: Tensor | None = None,
    resume: State | None = None,
) -> nn.Module:
    """Return a copy of the model that behaves as if never trained on the forget set.

    Ends after `Config.cycles` or, while forget samples are still answered more surely than unseen
    ones that are as hard, after up to `Config.more_cycles` more. The given model is left unchanged.
    On the CPU the same arguments give the same weights.

    Args:
        retain: a class-balanced reservoir of the retain set, not all of it.
        retain_logits: (R, C) of the original for the reservoir. Its answers are what is rehearsed.
            An audit measures the same samples before a run.
        holdout: labelled samples never trained on, for calibration; an audit needs others. Nothing
            is learned from them: those of removed classes are in the forget set's batches for
            comparison only.
        moments: moments of the original's retain features, without the forget set.
        class_counts: (C,) number of retain samples per class; 0 for a removed class.
        on_cycle: called after each cycle with the progress of the run; an exception from it stops
        the run.
        predictions: (F, C) probabilities from models that have not seen the forget samples; mixed
            with what the original would say if it had not (`as_if_unseen`), else only the latter.
        ease: (F,) how easy such models find the forget samples: `unseen_answers.ease_told`; read
            from an early layer of the original where it is not given.
        resume: the state of an earlier run with the same arguments; only the cycles after it are
        done.

    Raises:
        NotFinite: a loss or a weight became NaN or infinite (the message names the cycle), or the
            given model already has such outputs.
        NothingStays: no class would be left to keep.
        ValueError: a set is empty, `predictions` do not fit the forget set, or `retain_logits` the
            reservoir.
    """
    require_samples(forget=forget, retain=retain, holdout=holdout)
    if predictions is not None and len(predictions) != len(forget):
        raise ValueError(
            f"{len(predictions)} predictions, but {len(forget)} forget samples; give one for each"
        )
    if len(retain_logits) != len(retain):
        raise ValueError(
            f"{len(retain_logits)} rows of logits, but {len(retain)} retain samples; give one for "
            "each"
        )
    lost = lost_classes(forget.labels, class_counts, removing=config.removing)
    if lost.all():
        raise NothingStays("no class would stay; train a new model instead")
    generator = torch.Generator().manual_seed(config.seed)
    retain = network.resident(retain)
    places = [_scored(samples, config, generator) for samples in (forget, retain, holdout)]
    scored = [s.select(p) for s, p in zip((forget, retain, holdout), places, strict=True)]
    view = _look(
        network, scored, class_counts, config, eigenspace(moments, k=_k(class_counts, config))
    )
    leaving = holdout.select(lost[holdout.labels])
    unseen = as_if_unseen(
        network,
        forget=forget,
        retain=retain,
        holdout=holdout,
        class_counts=class_counts,
        config=config,
        generator=generator,
        ease=ease,
    )
    foretold = unseen.answers
    if predictions is not None:
        foretold = OUT_OF_SAMPLE * predictions.float() + (1 - OUT_OF_SAMPLE) * foretold
    answers = answers_as_unseen(forget.labels, view.holdout, lost, foretold, config)
    compared = network.resident(
        Samples(
            torch.cat([forget.inputs, leaving.inputs]), torch.cat([forget.labels, leaving.labels])
        )
    )
    shift, ceiling = 0.0, ceiling_of(view.holdout.logits)
    changed = network.copy()
    changed.freeze_leading(config.frozen_share)
    changed.train()
    silence(changed, lost)
    parts = divided(changed, compared)
    compared = parts.through(compared, config.batch_size)
    stem_outputs = StemOutputs(parts.stem, retain)
    own = own_answers(retain_logits, retain.labels, lost, config)
    kept = own.to(changed.device)
    companions = RetainCompanions(stem_outputs, kept, generator)
    with torch.random.fork_rng(devices=[d for d in [changed.device] if d.type == "cuda"]):
        torch.manual_seed(config.seed)  # dropout
        if resume is not None:
            _restore(resume, changed, generator, companions)
            view, shift = _look(changed, scored, class_counts, config), resume.shift
        goal = goal_of(compared, unseen.ease, answers, shift, view, lost)
        for cycle in _cycles(resume, config):
            for _ in range(TRIES):
                done = forget_phase(
                    parts.rest, goal, companions, config, cycle, generator, ceiling=ceiling
                )
                goal = replace(goal, shift=torch.tensor(done.shift))
                if done.excess <= REMEMBERED:
                    break
            damage = _damage(changed, scored[1], own[places[1]], config)
            count = recover_count(damage, config)
            rehearsed = rehearsal(retain.labels, config, generator, count)
            loss_retain, shift = recover_phase(
                parts.rest, goal, stem_outputs, kept, rehearsed, config, cycle, generator
            )
            view = _look(changed, scored, class_counts, config)
            goal = goal_of(compared, unseen.ease, answers, shift, view, lost)
            finished = cycle == config.most_cycles or (
                cycle >= config.cycles and not _remembers(view, goal, lost)
            )
            on_cycle(
                _scores(cycle, view, class_counts, (done, loss_retain), config.seed),
                _state(cycle, finished, shift, changed, generator, companions),
            )
            if finished:
                break
    changed.model.zero_grad()
    return changed.model.requires_grad_(True).eval()


def _damage(network: Network, retain: Samples, answers: Tensor, config: Config) -> float:
    """How far the network is from these answers (N, C) to retain samples, on average, in nats."""
    _, logits = network.outputs(retain, config.batch_size)
    return distillation_loss(logits, answers).item()


def _cycles(resume: State | None, config: Config) -> range:
    """The numbers of the cycles to do."""
    if resume is None:
        return range(1, config.most_cycles + 1)
    return range(0) if resume.finished else range(resume.cycle + 1, config.most_cycles + 1)


def _state(
    cycle: int,
    finished: bool,
    shift: float,
    changed: Network,
    generator: torch.Generator,
    companions: RetainCompanions,
) -> State:
    on_gpu = changed.device.type == "cuda"
    return State(
        cycle=cycle,
        finished=finished,
        shift=shift,
        weights=changed.model.state_dict(),
        generator=generator.get_state(),
        dropout=torch.get_rng_state(),
        device_dropout=torch.cuda.get_rng_state(changed.device) if on_gpu else None,
        companions=companions.waiting,
    )


def _restore(
    state: State, changed: Network, generator: torch.Generator, companions: RetainCompanions
) -> None:
    changed.model.load_state_dict(state.weights)
    generator.set_state(state.generator)
    torch.set_rng_state(state.dropout)
    if state.device_dropout is not None and changed.device.type == "cuda":
        torch.cuda.set_rng_state(state.device_dropout, changed.device)
    companions.waiting = state.companions


def _remembers(view: View, goal: Goal, lost: Tensor) -> bool:
    """Whether forget samples of retained classes are answered more surely than unseen ones: than
    those that are as hard, and than those of their classes, by more than a little and than one
    standard error of a random draw. How hard a sample is, is known too little to rely on alone."""
    mine = view.forget.select(~lost[view.forget.labels])
    unseen = view.holdout.select(torch.isin(view.holdout.labels, mine.labels))
    noise = (12 * max(len(mine.labels), 1)) ** -0.5
    above = (surer_by(mine.losses(), each) for each in (goal.unseen_losses, unseen.losses()))
    return bool(min(above) > REMEMBERED + noise)


def _scored(samples: Samples, config: Config, generator: torch.Generator) -> Tensor:
    """Indices of the samples that are scored between cycles."""
    return class_balanced(samples.labels, config.scoring_samples, generator)


def _k(class_counts: Tensor, config: Config) -> int:
    return default_k(class_counts) if config.k is None else config.k


def _look(
    network: Network,
    scored: list[Samples],
    class_counts: Tensor,
    config: Config,
    space: Eigenspace | None = None,
) -> View:
    """Outputs on the three sets, and the present eigenspace of the network."""
    forget, retain, holdout = (Outputs.of(network, s, config.batch_size) for s in scored)
    if space is None:
        space = eigenspace(retain_moments(retain, class_counts), k=_k(class_counts, config))
    return View(forget, retain, holdout, space)


def _scores(
    cycle: int,
    view: View,
    class_counts: Tensor,
    losses: tuple[Forgotten, float],
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
        loss_alignment=losses[0].loss_alignment,
        loss_distillation=losses[0].loss_distillation,
        loss_retain=losses[1],
        forget_accuracy=accuracy(view.forget) or 0.0,
        retain_accuracy=accuracy(view.retain, retain_weights(view.retain.labels, class_counts))
        or 0.0,
        holdout_accuracy=accuracy(staying),
    )
