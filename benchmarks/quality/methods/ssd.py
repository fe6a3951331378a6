"""Selective synaptic dampening: shrink the weights that matter more to the forget set than to all.

Source: Foster et al., "Fast Machine Unlearning without Retraining through Selective Synaptic
Dampening", AAAI 2024 (arXiv:2308.07707): no training; importance is the diagonal of the Fisher
information, approximated as in the authors' code by squared gradients of batches, in evaluation
mode; alpha 10 and lambda 1. Adapted: the batches of both sets have the same size, that of the
forget set where it is smaller, since the importance depends on it; small alphas are searched,
because on random samples both importances are nearly equal and 10 selects nothing.
"""

import torch
from torch import Tensor, nn

from benchmarks.quality.methods.given import Given, defaults
from benchmarks.quality.methods.training import cross_entropy, finish, start
from worker.unlearning.network import Network
from worker.unlearning.samples import Samples


def unlearn(
    given: Given, *, alpha: float = 10.0, dampening: float = 1.0, batch_size: int = 128
) -> nn.Module:
    """Dampen weights whose importance to the forget set exceeds alpha times that to all.

    Args:
        dampening: lambda; a selected weight is multiplied by lambda importance(all) /
            importance(forget), by 1 at most.
        batch_size: batch size of the squared gradients.
    """
    network, generator = start(given)
    network.model.eval()
    everything = Samples(
        torch.cat([given.retain.inputs, given.forget.inputs]),
        torch.cat([given.retain.labels, given.forget.labels]),
    )
    size = min(batch_size, len(given.forget))
    to_all, to_forget = (
        importance(network, samples, size, generator) for samples in (everything, given.forget)
    )
    for parameter, whole, part in zip(network.model.parameters(), to_all, to_forget, strict=True):
        factor = (dampening * whole / part).clamp(max=1)
        with torch.no_grad():
            parameter.copy_(torch.where(part > alpha * whole, parameter * factor, parameter))
    return finish(network)


def importance(
    network: Network, samples: Samples, batch_size: int, generator: torch.Generator
) -> list[Tensor]:
    """Mean squared gradient of the batch loss, for each parameter."""
    parameters = list(network.model.parameters())
    sums, batches = [torch.zeros_like(each) for each in parameters], 0
    for inputs, labels in samples.batches(batch_size, generator):
        loss = cross_entropy(network, inputs, labels)
        for total, gradient in zip(sums, torch.autograd.grad(loss, parameters), strict=True):
            total += gradient**2
        batches += 1
    return [total / batches for total in sums]


SETTINGS = defaults(unlearn)
SEARCH = [
    SETTINGS | change
    for change in (
        {},
        {"alpha": 2.0},
        {"alpha": 2.0, "batch_size": 8},
        {"alpha": 5.0},
        {"alpha": 3.0},
        {"alpha": 1.5},
        {"alpha": 2.0, "dampening": 0.5},
        {"alpha": 1.2, "batch_size": 8},
    )
]
