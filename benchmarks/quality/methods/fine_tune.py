"""Fine-tuning: train on the retain set, and rely on the rest being forgotten.

Source: the baseline of nearly every paper; SGD with momentum, rate 0.01, 10 epochs in that of
"Deep Unlearn" (arXiv:2410.01276) and of RUM (arXiv:2406.01257). Adapted: 6 epochs.
"""

from torch import nn

from benchmarks.quality.methods.given import Given, defaults
from benchmarks.quality.methods.training import Descent, finish, sgd, start, steps_in, train


def unlearn(given: Given, *, lr: float = 0.01, epochs: int = 6) -> nn.Module:
    """The original after some more training without the forget set."""
    network, generator = start(given)
    descent = Descent(sgd(network.model, lr), epochs * steps_in(given.retain))
    train(network, given.retain, descent, epochs, generator)
    return finish(network)


SETTINGS = defaults(unlearn)
SEARCH = [
    SETTINGS | change
    for change in (
        {},
        {"lr": 0.1},
        {"lr": 0.04},
        {"lr": 0.003},
        {"lr": 0.02},
        {"lr": 0.07},
        {"lr": 0.05, "epochs": 3},
        {"lr": 0.1, "epochs": 4},
    )
]
