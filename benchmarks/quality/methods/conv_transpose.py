"""CT: transpose every convolution kernel, then recover on the retain set.

Source: the fifth place of the NeurIPS 2023 unlearning competition (arXiv:2406.09073), as described
in "Deep Unlearn" (arXiv:2410.01276): height and width of each kernel are swapped; fine-tuning at
rate 1e-3 with cosine, 3 epochs. Adapted: batches of 128 instead of 64; the rate changes step by
step instead of epoch by epoch. For models with 2-d convolutions only.
"""

import torch
from torch import nn

from benchmarks.quality.methods.given import Given, defaults
from benchmarks.quality.methods.training import Descent, finish, sgd, start, steps_in, train


def unlearn(given: Given, *, lr: float = 1e-3, epochs: int = 3) -> nn.Module:
    """Transpose, then fine-tune."""
    network, generator = start(given)
    transpose(network.model)
    descent = Descent(sgd(network.model, lr), epochs * steps_in(given.retain))
    train(network, given.retain, descent, epochs, generator)
    return finish(network)


@torch.no_grad()
def transpose(model: nn.Module) -> None:
    """Swap height and width of every square convolution kernel, in place."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.kernel_size[0] == module.kernel_size[1]:
            module.weight.copy_(module.weight.transpose(2, 3).clone())


SETTINGS = defaults(unlearn)
SEARCH = [
    SETTINGS | change
    for change in (
        {},
        {"lr": 0.03},
        {"lr": 0.1},
        {"lr": 0.003},
        {"lr": 0.01},
        {"lr": 0.01, "epochs": 6},
        {"lr": 0.03, "epochs": 6},
        {"lr": 0.1, "epochs": 6},
    )
]
