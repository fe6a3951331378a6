"""L1-sparse: fine-tuning on the retain set with an L1 penalty that fades.

Source: Jia et al., "Model Sparsity Can Simplify Machine Unlearning", NeurIPS 2023
(arXiv:2304.04934): the penalty's weight falls linearly to zero over the epochs; 1e-5,
rate 0.01, 10 epochs in RUM (arXiv:2406.01257). Adapted: 6 epochs.
"""

import torch
from torch import nn

from benchmarks.quality.methods.given import Given, defaults
from benchmarks.quality.methods.training import (
    BATCH_SIZE,
    Descent,
    cross_entropy,
    finish,
    sgd,
    start,
    steps_in,
)


def unlearn(given: Given, *, lr: float = 0.01, epochs: int = 6, penalty: float = 1e-5) -> nn.Module:
    """Minimise CE(retain) + penalty (1 - epoch / epochs) |weights|_1."""
    network, generator = start(given)
    descent = Descent(sgd(network.model, lr), epochs * steps_in(given.retain))
    for epoch in range(epochs):
        weight = penalty * (1 - epoch / epochs)
        for inputs, labels in given.retain.batches(BATCH_SIZE, generator):
            size = torch.stack([each.abs().sum() for each in network.model.parameters()]).sum()
            descent.step(cross_entropy(network, inputs, labels) + weight * size)
    return finish(network)


SETTINGS = defaults(unlearn)
SEARCH = [
    SETTINGS | change
    for change in (
        {},
        {"penalty": 1e-4, "lr": 0.1},
        {"penalty": 5e-4, "lr": 0.03},
        {"penalty": 1e-4},
        {"penalty": 5e-4},
        {"penalty": 1e-4, "lr": 0.03},
        {"penalty": 1e-3, "lr": 0.03},
        {"penalty": 5e-4, "lr": 0.1},
    )
]
