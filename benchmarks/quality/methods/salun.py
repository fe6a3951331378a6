"""SalUn: random labels for the forget set, learned by the salient weights only.

Source: Fan et al., "SalUn", ICLR 2024 (arXiv:2310.12508): salient are the weights with the largest
gradients of the forget loss at the original, half of all by default; each epoch is a pass over the
forget set with random wrong labels, then one over the retain set; rate 0.013, 10 epochs. Adapted:
6 epochs. After each step the other weights are put back and their momentum erased, so that neither
weight decay nor momentum moves them, as in the authors' code since its commit a6e89fd.
"""

import torch
from torch import Tensor, nn

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
from worker.unlearning.network import Network
from worker.unlearning.samples import Samples


def unlearn(
    given: Given, *, lr: float = 0.013, epochs: int = 6, salient_share: float = 0.5
) -> nn.Module:
    """Alternate random and correct labels, with all other weights frozen.

    Args:
        salient_share: share of all weights that may change.
    """
    network, generator = start(given)
    masks = salient(given.original, given.forget, salient_share)
    parameters = dict(network.model.named_parameters())
    frozen = [(parameters[name], mask, parameters[name].detach().clone()) for name, mask in masks]
    optimizer = sgd(network.model, lr)
    steps = epochs * (steps_in(given.forget) + steps_in(given.retain))
    descent = Descent(optimizer, steps, scales={parameters[name]: mask for name, mask in masks})
    classes = given.original.outputs(given.forget.select(torch.tensor([0])), 1)[1].shape[1]
    for _ in range(epochs):
        for inputs, labels in given.forget.batches(BATCH_SIZE, generator):
            wrong = wrong_labels(labels, classes, generator)
            descent.step(cross_entropy(network, inputs, wrong))
            _put_back(frozen, optimizer)
        for inputs, labels in given.retain.batches(BATCH_SIZE, generator):
            descent.step(cross_entropy(network, inputs, labels))
            _put_back(frozen, optimizer)
    return finish(network)


def salient(original: Network, forget: Samples, share: float) -> list[tuple[str, Tensor]]:
    """Masks (bool) of the `share` most salient weights, by parameter name."""
    network = original.copy()
    network.model.requires_grad_(True).eval()
    for inputs, labels in forget.batches(BATCH_SIZE):
        loss = cross_entropy(network, inputs, labels) * len(labels)
        loss.backward()  # type: ignore[no-untyped-call]  # torch
    named = list(network.model.named_parameters())
    sizes = [
        (torch.zeros_like(each) if each.grad is None else each.grad.abs()).flatten()
        for _, each in named
    ]
    ranked = torch.cat(sizes).argsort(descending=True, stable=True)
    mask = torch.zeros(len(ranked), dtype=torch.bool, device=ranked.device)
    mask[ranked[: round(share * len(ranked))]] = True
    parts = torch.split(mask, [each.numel() for _, each in named])
    return [(name, part.view(each.shape)) for (name, each), part in zip(named, parts, strict=True)]


def wrong_labels(labels: Tensor, classes: int, generator: torch.Generator) -> Tensor:
    """A random label (N,) for each sample, never its own."""
    return (labels + torch.randint(1, classes, labels.shape, generator=generator)) % classes


@torch.no_grad()
def _put_back(
    frozen: list[tuple[nn.Parameter, Tensor, Tensor]], optimizer: torch.optim.Optimizer
) -> None:
    """Undo what weight decay and momentum did where the mask is false."""
    for parameter, mask, before in frozen:
        parameter.copy_(torch.where(mask, parameter, before))
        momentum = optimizer.state[parameter].get("momentum_buffer")
        if momentum is not None:
            momentum *= mask


SETTINGS = defaults(unlearn)
SEARCH = [
    SETTINGS | change
    for change in (
        {},
        {"lr": 0.05},
        {"lr": 0.03, "salient_share": 0.8},
        {"lr": 0.003},
        {"lr": 0.03},
        {"lr": 0.1},
        {"lr": 0.03, "salient_share": 0.3},
        {"lr": 0.03, "epochs": 3},
    )
]
