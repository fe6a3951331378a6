"""NegGrad+: descend on the retain set and ascend on the forget set, in the same step.

Source: Kurmanji et al., "Towards Unbounded Machine Unlearning", NeurIPS 2023 (arXiv:2302.09880);
alpha 0.95, rate 0.01, and batch normalisation in evaluation mode as "Deep Unlearn"
(arXiv:2410.01276) has it; in the authors' own code it is in training mode, which is searched too.
Adapted: 3 epochs instead of 10, as each step sees two batches. The ascent is unbounded, so
gradients are clipped.
"""

from torch import nn

from benchmarks.quality.methods.given import Given, defaults
from benchmarks.quality.methods.training import (
    BATCH_SIZE,
    Descent,
    cross_entropy,
    cycled,
    finish,
    freeze_statistics,
    sgd,
    start,
    steps_in,
)


def unlearn(
    given: Given,
    *,
    alpha: float = 0.95,
    lr: float = 0.01,
    epochs: int = 3,
    frozen_statistics: bool = True,
) -> nn.Module:
    """Minimise alpha CE(retain) - (1 - alpha) CE(forget).

    Args:
        epochs: passes over the retain set; the forget set is cycled beside it.
        frozen_statistics: batch normalisation keeps the statistics of the original.
    """
    network, generator = start(given)
    if frozen_statistics:
        freeze_statistics(network.model)
    descent = Descent(sgd(network.model, lr, weight_decay=0.0), epochs * steps_in(given.retain))
    forgotten = cycled(given.forget, generator)
    for _ in range(epochs):
        for kept in given.retain.batches(BATCH_SIZE, generator):
            keeping = cross_entropy(network, *kept)
            losing = cross_entropy(network, *next(forgotten))
            descent.step(alpha * keeping - (1 - alpha) * losing)
    return finish(network)


SETTINGS = defaults(unlearn)
SEARCH = [
    SETTINGS | change
    for change in (
        {},
        {"frozen_statistics": False, "lr": 0.03},
        {"alpha": 0.8},
        {"lr": 0.003},
        {"lr": 0.03},
        {"alpha": 0.9},
        {"alpha": 0.99, "lr": 0.03},
        {"frozen_statistics": False},
    )
]
