"""MSG: re-initialise the convolution weights that matter least, then recover on the retain set.

Source: the second place of the NeurIPS 2023 unlearning competition (arXiv:2406.09073), as described
in "Deep Unlearn" (arXiv:2410.01276): gradients of CE(retain) - CE(forget), on as many retain as
forget samples; in each convolution the 30 % of weights with the smallest gradients are
re-initialised; then fine-tuning, in which the gradients of the other convolution weights are
multiplied by 0.1; rate 1e-3, 5 epochs, linear warm-up, then linear decay. Adapted: batches of 128
instead of 64; the rate changes step by step instead of epoch by epoch. For models with 2-d
convolutions only.
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
    train,
)
from worker.unlearning.network import Network

SLOWED = 0.1
"""Factor for the gradients of the kept convolution weights."""


def unlearn(
    given: Given, *, lr: float = 1e-3, epochs: int = 5, renewed_share: float = 0.3
) -> nn.Module:
    """Re-initialise, then fine-tune.

    Args:
        renewed_share: share of each convolution's weights to re-initialise.
    """
    network, generator = start(given)
    masks = renewed(network, given, renewed_share, generator)
    for weight, mask in masks.items():
        drawn = nn.init.kaiming_normal_(
            torch.empty(weight.shape), mode="fan_out", nonlinearity="relu", generator=generator
        )
        with torch.no_grad():
            weight.copy_(torch.where(mask, drawn.to(weight), weight))
    descent = Descent(
        sgd(network.model, lr),
        epochs * steps_in(given.retain),
        schedule=lambda done: min(2 * done, 2 - 2 * done),
        scales={weight: torch.where(mask, 1.0, SLOWED) for weight, mask in masks.items()},
    )
    train(network, given.retain, descent, epochs, generator)
    return finish(network)


def renewed(
    network: Network, given: Given, share: float, generator: torch.Generator
) -> dict[nn.Parameter, Tensor]:
    """Masks (bool) of the `share` of each convolution's weights with the smallest gradients."""
    order = torch.randperm(len(given.retain), generator=generator)
    retain = given.retain.select(order[: len(given.forget)])
    network.model.eval()
    for samples, sign in ((retain, 1), (given.forget, -1)):
        for inputs, labels in samples.batches(BATCH_SIZE):
            loss = sign * cross_entropy(network, inputs, labels)
            loss.backward()  # type: ignore[no-untyped-call]  # torch
    network.model.train()
    masks: dict[nn.Parameter, Tensor] = {}
    for module in network.model.modules():
        weight = module.weight if isinstance(module, nn.Conv2d) else None
        if isinstance(weight, nn.Parameter) and weight.grad is not None:
            sizes = weight.grad.abs().flatten()
            mask = torch.zeros_like(sizes, dtype=torch.bool)
            mask[sizes.argsort(stable=True)[: round(share * len(sizes))]] = True
            masks[weight] = mask.view(weight.shape)
    return masks


SETTINGS = defaults(unlearn)
SEARCH = [
    SETTINGS | change
    for change in (
        {},
        {"lr": 0.03},
        {"lr": 0.03, "renewed_share": 0.5},
        {"lr": 0.01},
        {"lr": 0.1},
        {"lr": 0.03, "renewed_share": 0.1},
        {"lr": 0.01, "renewed_share": 0.5},
        {"lr": 0.1, "renewed_share": 0.5},
    )
]
