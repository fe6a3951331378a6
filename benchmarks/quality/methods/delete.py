"""DELETE: distil from the original with the true class masked out, on the forget set alone.

Source: Zhou et al., "Decoupled Distillation to Erase", CVPR 2025 (arXiv:2503.23751): the frozen
original's logit of the true class is set to minus infinity, and the model learns the softmax of
the rest; SGD with momentum 0.9 and no weight decay, rate 1e-4, 20 epochs, batch 128 for CIFAR-10.
The retain set is never used. Adapted: a tenth of the data leaves a tenth of the steps, so larger
rates and more epochs are searched, and, as in the authors' code, frozen batch normalisation.
"""

import torch
from torch import Tensor, nn

from benchmarks.quality.methods.given import Given, defaults
from benchmarks.quality.methods.training import (
    BATCH_SIZE,
    Descent,
    divergence,
    finish,
    freeze_statistics,
    sgd,
    start,
    steps_in,
)
from worker.unlearning.samples import batch_indices


def unlearn(
    given: Given, *, lr: float = 1e-4, epochs: int = 20, frozen_statistics: bool = False
) -> nn.Module:
    """Learn the original's answers without the true class.

    Args:
        epochs: passes over the forget set.
        frozen_statistics: batch normalisation keeps the statistics of the original.
    """
    network, generator = start(given)
    if frozen_statistics:
        freeze_statistics(network.model)
    _, original = given.original.outputs(given.forget, 4 * BATCH_SIZE)
    teacher = masked(original, given.forget.labels)
    descent = Descent(sgd(network.model, lr, weight_decay=0.0), epochs * steps_in(given.forget))
    for _ in range(epochs):
        for chosen in batch_indices(len(given.forget), BATCH_SIZE, generator):
            _, logits = network(given.forget.inputs[chosen])
            descent.step(divergence(logits, teacher[chosen]))
    return finish(network)


def masked(logits: Tensor, labels: Tensor) -> Tensor:
    """Logits (N, C) with the true class masked out."""
    return logits.scatter(1, labels[:, None], torch.finfo(logits.dtype).min)


SETTINGS = defaults(unlearn)
SEARCH = [
    SETTINGS | change
    for change in (
        {},
        {"lr": 1e-3},
        {"lr": 1e-3, "frozen_statistics": True},
        {"lr": 3e-4},
        {"lr": 3e-3},
        {"frozen_statistics": True},
        {"lr": 3e-4, "frozen_statistics": True},
        {"lr": 3e-4, "epochs": 50, "frozen_statistics": True},
    )
]
