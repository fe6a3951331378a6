"""SCRUB and SCRUB+R: drive away from the teacher on the forget set, back to it on the retain set.

Each of the first `max_steps` epochs begins with a pass that maximises the divergence from the
original on the forget set; every epoch ends with one that minimises divergence and cross-entropy on
the retain set. Then the rewind (+R): of the checkpoints after each epoch, take the one whose forget
error is nearest to the error of the last one on hold-out of the same classes. The rewind is for
privacy; for class removal the paper has none, and neither do we.

Source: Kurmanji et al., "Towards Unbounded Machine Unlearning", NeurIPS 2023 (arXiv:2302.09880);
rate 0.005, 5 epochs, 4 of them with a maximising pass, and temperature 4 are those of RUM
(arXiv:2406.01257) for CIFAR-10, weights of the losses those of the authors' notebook. Adapted: SGD
and cosine instead of steps in the rate; a forget pass has batches of 128. The teacher is frozen, so
its answers are computed once. The maximised divergence is unbounded, so gradients are clipped.
"""

import copy

import torch
from torch import Tensor, nn

from benchmarks.quality.methods.given import Given, defaults
from benchmarks.quality.methods.training import (
    BATCH_SIZE,
    Descent,
    divergence,
    finish,
    sgd,
    start,
    steps_in,
)
from worker.unlearning.alignment import matching_weights
from worker.unlearning.network import Network
from worker.unlearning.samples import Samples, batch_indices


def unlearn(
    given: Given,
    *,
    lr: float = 0.005,
    epochs: int = 5,
    max_steps: int = 4,
    alpha: float = 0.5,
    gamma: float = 1.0,
    temperature: float = 4.0,
) -> nn.Module:
    """Alternate the two passes, then rewind.

    Args:
        max_steps: epochs that begin with a maximising pass.
        alpha: weight of the divergence on the retain set.
        gamma: weight of the cross-entropy on the retain set.
    """
    network, generator = start(given)
    forget_teacher, retain_teacher = (
        given.original.outputs(samples, 4 * BATCH_SIZE)[1]
        for samples in (given.forget, given.retain)
    )
    rising = min(max_steps, epochs)
    steps = epochs * steps_in(given.retain) + rising * steps_in(given.forget)
    descent = Descent(sgd(network.model, lr), steps)
    checkpoints = []
    for epoch in range(epochs):
        if epoch < rising:
            maximise(network, given.forget, forget_teacher, descent, temperature, generator)
        minimise(
            network, given.retain, retain_teacher, descent, (alpha, gamma), temperature, generator
        )
        checkpoints.append(copy.deepcopy(network.model))
    if given.removing:
        return finish(network)
    chosen = rewound([network.around(each) for each in checkpoints], given.forget, given.holdout)
    return finish(chosen)


def maximise(
    network: Network,
    forget: Samples,
    teacher: Tensor,
    descent: Descent,
    temperature: float,
    generator: torch.Generator,
) -> None:
    """One pass away from the teacher's logits (F, C)."""
    for chosen in batch_indices(len(forget), BATCH_SIZE, generator):
        _, logits = network(forget.inputs[chosen])
        descent.step(-divergence(logits, teacher[chosen], temperature))


def minimise(
    network: Network,
    retain: Samples,
    teacher: Tensor,
    descent: Descent,
    weights: tuple[float, float],
    temperature: float,
    generator: torch.Generator,
) -> None:
    """One pass towards the teacher's logits (R, C) and the labels."""
    alpha, gamma = weights
    for chosen in batch_indices(len(retain), BATCH_SIZE, generator):
        _, logits = network(retain.inputs[chosen])
        labels = retain.labels[chosen].to(logits.device)
        known = nn.functional.cross_entropy(logits, labels)
        descent.step(alpha * divergence(logits, teacher[chosen], temperature) + gamma * known)


def rewound(checkpoints: list[Network], forget: Samples, holdout: Samples) -> Network:
    """The checkpoint whose forget error is nearest to the last one's error on matching hold-out."""
    like = matching_weights(holdout.labels, forget.labels)
    reference = _error(checkpoints[-1], holdout, like)
    even = torch.full((len(forget),), 1 / len(forget), dtype=torch.float64)
    return min(checkpoints, key=lambda each: abs(_error(each, forget, even) - reference))


def _error(network: Network, samples: Samples, weights: Tensor) -> float:
    _, logits = network.outputs(samples, 4 * BATCH_SIZE)
    return ((logits.argmax(1) != samples.labels) * weights).sum().item()


SETTINGS = defaults(unlearn)
SEARCH = [
    SETTINGS | change
    for change in (
        {},
        {"lr": 0.02},
        {"lr": 0.01, "max_steps": 2},
        {"lr": 0.002},
        {"lr": 0.01},
        {"lr": 0.02, "max_steps": 2},
        {"lr": 0.03, "max_steps": 1},
        {"lr": 0.01, "max_steps": 3, "alpha": 0.1, "temperature": 2.0},
    )
]
