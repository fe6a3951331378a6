"""How a network is retrained: by the default recipe, or by a user's function.

A recipe is a function `train(model, data, *, seed) -> model`. `model` is freshly built, in training
mode, on the worker's device, and returns logits; `data` is a map-style dataset of pairs: an input
as the model takes it, on the CPU, and its label. Its attribute `passes`, if it has one, says how
many passes over the data it makes, so that its time can be estimated.

Shapes: N samples, C classes.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset

from domain.errors import JobError
from domain.functions import HEAD
from worker.networks import architectures, functions
from worker.unlearning.samples import Samples, batch_indices

DEFAULT = "worker.networks.recipes:train"
"""The name of the default recipe."""

EPOCHS = 18
LEAST_STEPS = 600
"""The least number of steps: small sets get more epochs."""

BATCH = 128
PEAK_LR = 0.1
"""Highest learning rate of SGD, for networks with batch normalisation."""

PEAK_LR_ADAM = 1e-3
"""Highest learning rate of AdamW, for all others."""

WEIGHT_DECAY = 5e-4
CLIP = 1.0
"""The largest gradient norm (Euclidean); longer gradients are clipped."""


class TrainingData(Dataset[tuple[Tensor, int]]):
    """Samples as a recipe gets them: one by one, or in batches, which is much faster."""

    def __init__(self, samples: Samples, prepare: Callable[[Tensor], Tensor]) -> None:
        """Offer the samples, with their inputs prepared for the model."""
        self.samples = samples
        self.prepare = prepare

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        if not -len(self) <= index < len(self):
            raise IndexError(index)  # it also ends iteration
        inputs, labels = self.batch(torch.tensor([index]))
        return inputs[0], int(labels)

    def batch(self, indices: Tensor, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
        """Inputs and labels (B,) of the samples at `indices` (B,), prepared on `device`."""
        inputs, labels = self.samples.inputs[indices], self.samples.labels[indices]
        return self.prepare(inputs.to(device)), labels.to(device)


class Recipe(Protocol):
    """A function that trains a freshly built model."""

    def __call__(self, model: nn.Module, data: Any, *, seed: int) -> nn.Module: ...


def train(model: nn.Module, data: TrainingData, *, seed: int) -> nn.Module:
    """The default recipe: cross-entropy, without augmentation, for at least 600 steps.

    SGD with Nesterov momentum if there is batch normalisation, else AdamW; a one-cycle learning
    rate and clipped gradients. On the CPU the same arguments give the same weights.
    """
    generator = torch.Generator().manual_seed(seed)
    device = next(model.parameters()).device
    passes, steps = epochs(len(data)), math.ceil(len(data) / BATCH)
    optimizer, peak = _optimizer(model)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, peak, total_steps=passes * steps)
    for _ in range(passes):
        for chosen in batch_indices(len(data), BATCH, generator):
            inputs, labels = data.batch(chosen, device)
            loss = F.cross_entropy(model(inputs), labels)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch
            nn.utils.clip_grad_norm_(model.parameters(), CLIP)
            optimizer.step()
            schedule.step()
    return model


def epochs(count: int) -> int:
    """How many passes over so many samples the default recipe makes."""
    return max(EPOCHS, math.ceil(LEAST_STEPS / math.ceil(count / BATCH)))


def head(model: nn.Module, data: TrainingData, *, seed: int) -> nn.Module:
    """Stands for a head that is fitted anew on a frozen backbone. A job does it by itself, because
    it needs what entered the head at registration, and a network with the backbone's weights."""
    raise JobError(
        f"{HEAD!r} trains no network of its own: register the model with a `backbone`, "
        "and leave training to its jobs."
    )


def load(name: str, allowed: Iterable[str]) -> Recipe:
    """The recipe with this name; those that come with the worker are always allowed.

    Args:
        name: `package.module:function`.
        allowed: such names, or `package.module:*`, from the settings.

    Raises:
        JobError: the recipe is not allowed, or cannot be imported.
    """
    recipe: Recipe = functions.load(
        "recipe", name, {*allowed, DEFAULT, HEAD}, setting="LETHE_RECIPES"
    )
    return recipe


def fresh(
    architecture: dict[str, Any],
    factories: Iterable[str],
    recipe: str,
    recipes: Iterable[str],
    data: TrainingData,
    *,
    device: torch.device,
    seed: int,
) -> nn.Module:
    """A network of the architecture with new weights, trained by the recipe, in evaluation mode.

    On the CPU the same arguments give the same weights, if the user's code is deterministic.

    Raises:
        JobError: the architecture or the recipe is not allowed, or fails.
    """
    train_on = load(recipe, recipes)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        model = architectures.build(architecture, factories).to(device).train()
        with functions.users_code(f"The recipe {recipe!r}"):
            trained = train_on(model, data, seed=seed)
    if not isinstance(trained, nn.Module):
        kind = type(trained).__name__
        raise JobError(
            f"The recipe {recipe!r} returned a {kind}; make it return the trained torch.nn.Module."
        )
    return trained.to(device).eval()


def _optimizer(model: nn.Module) -> tuple[torch.optim.Optimizer, float]:
    """The optimizer and its highest learning rate."""
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in model.modules()):
        sgd = torch.optim.SGD(
            learning, PEAK_LR, momentum=0.9, nesterov=True, weight_decay=WEIGHT_DECAY
        )
        return sgd, PEAK_LR
    return torch.optim.AdamW(learning, PEAK_LR_ADAM, weight_decay=WEIGHT_DECAY), PEAK_LR_ADAM
