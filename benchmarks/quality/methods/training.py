"""What the baselines' training loops share.

The same adaptations for all, in their favour: batches of 128, learning rates annealed to zero (at a
constant rate the small CNN loses points of test accuracy), and gradients clipped to norm 10,
because some of the losses have no lower bound. A batch-normalised CNN seldom exceeds it. Papers
give 10 epochs for models trained 182; here no setting costs more than 40 % of retraining's 18.
"""

import math
from collections.abc import Callable, Iterator, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.quality.methods.given import Given
from worker.unlearning.network import Network
from worker.unlearning.samples import Samples

BATCH_SIZE = 128
MOMENTUM, WEIGHT_DECAY = 0.9, 5e-4
LONGEST_GRADIENT = 10.0


def start(given: Given) -> tuple[Network, torch.Generator]:
    """A copy of the original, ready for training, and the random generator."""
    network = given.original.copy()
    network.model.requires_grad_(True).train()
    return network, torch.Generator().manual_seed(given.seed)


def finish(network: Network) -> nn.Module:
    """The trained model, in evaluation mode and without gradients."""
    network.model.zero_grad()
    return network.model.eval()


def freeze_statistics(model: nn.Module) -> None:
    """Let batch normalisation use its running statistics, and leave them as they are."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()


def sgd(model: nn.Module, lr: float, weight_decay: float = WEIGHT_DECAY) -> torch.optim.Optimizer:
    """SGD with momentum, as in most of the papers."""
    return torch.optim.SGD(model.parameters(), lr, momentum=MOMENTUM, weight_decay=weight_decay)


def cosine(done: float) -> float:
    """The rate as a share of the highest, where `done` in [0, 1] of all steps are done."""
    return (1 + math.cos(math.pi * done)) / 2


class Descent:
    """An optimiser that anneals its rate over a known number of steps and clips gradients."""

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        steps: int,
        *,
        schedule: Callable[[float], float] = cosine,
        scales: Mapping[nn.Parameter, Tensor] | None = None,
    ) -> None:
        """Descend for `steps` steps.

        Args:
            schedule: maps the share of steps done to a share of the optimiser's rate.
            scales: elementwise factors for the gradients of these parameters.
        """
        self.optimizer = optimizer
        self._scales = dict(scales or {})
        self._annealing = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: schedule((step + 0.5) / steps)
        )

    def step(self, loss: Tensor) -> None:
        """Step against the gradient of a loss ()."""
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch
        for parameter, scale in self._scales.items():
            if parameter.grad is not None:
                parameter.grad *= scale
        moved = [each for group in self.optimizer.param_groups for each in group["params"]]
        torch.nn.utils.clip_grad_norm_(moved, LONGEST_GRADIENT)
        self.optimizer.step()
        self._annealing.step()


def steps_in(samples: Samples) -> int:
    """The number of batches in one pass."""
    return math.ceil(len(samples) / BATCH_SIZE)


def cycled(samples: Samples, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless batches, reshuffled in each pass."""
    while True:
        yield from samples.batches(BATCH_SIZE, generator)


def cross_entropy(network: Network, inputs: Tensor, labels: Tensor) -> Tensor:
    """() mean over the batch, in nats."""
    _, logits = network(inputs)
    return F.cross_entropy(logits, labels.to(logits.device))


def divergence(logits: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """KL(teacher || student), averaged over the batch, in nats.

    Args:
        logits: (N, C) of the student.
        teacher: (N, C) logits; no gradient flows into them.
        temperature: both are divided by it, and the result multiplied by its square.

    Source:
        Hinton et al., 2015, arXiv:1503.02531.
    """
    student = (logits / temperature).log_softmax(1)
    target = (teacher.detach().to(logits) / temperature).softmax(1)
    return F.kl_div(student, target, reduction="batchmean") * temperature**2


def train(
    network: Network, samples: Samples, descent: Descent, epochs: int, generator: torch.Generator
) -> None:
    """Plain training: cross-entropy on every sample, `epochs` times."""
    for _ in range(epochs):
        for inputs, labels in samples.batches(BATCH_SIZE, generator):
            descent.step(cross_entropy(network, inputs, labels))
