"""A toy problem for unlearning methods, and the measurements on it."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.quality.methods.given import Given
from worker.unlearning.network import Network
from worker.unlearning.samples import Samples

CLASSES, RETRAINING_EPOCHS = 4, 18


def new_model(seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(8, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, CLASSES),
        )  # fmt: skip


def scaled(inputs: Tensor) -> Tensor:
    return inputs.float() / 64 - 2


def draw(count: int, seed: int) -> Samples:
    """Noisy uint8 images (N, 3, 8, 8) whose class shows in one bright quarter."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % CLASSES
    images = torch.randn(count, 3, 8, 8, generator=generator) * 50 + 100
    for label in range(CLASSES):
        row, column = 4 * (label // 2), 4 * (label % 2)
        images[labels == label, label % 3, row : row + 4, column : column + 4] += 40
    return Samples(images.clamp(0, 255).to(torch.uint8), labels)


class _Poison(Samples):
    """Samples that no one may look at."""

    def __len__(self) -> int:
        raise AssertionError("looked at")

    def __getattribute__(self, name: str) -> Any:
        raise AssertionError(f"looked at {name}")


POISON = object.__new__(_Poison)


def counting(given: Given) -> tuple[Given, Callable[[], float]]:
    """The same problem, and what was spent on it: samples trained on, a look being a third."""
    spent = [0.0]

    def prepare(inputs: Tensor) -> Tensor:
        spent[0] += len(inputs) * (1 if torch.is_grad_enabled() else 1 / 3)
        return scaled(inputs)

    network = Network(given.original.model, head=given.original.head, prepare=prepare)
    return replace(given, original=network), lambda: spent[0]


def wrong_on(inputs: list[int]) -> Network:
    """A network that answers 1 to these inputs and 0 to the others."""

    class Answer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Identity()
            self.weight = nn.Parameter(torch.zeros(()))

        def forward(self, values: Tensor) -> Tensor:
            wrong = torch.isin(values[:, 0], torch.tensor(inputs, dtype=values.dtype))
            return F.one_hot(wrong.long(), 2) + 0 * self.head(values).sum()

    return Network(Answer(), head="head", prepare=lambda batch: batch)


def joined(first: Samples, second: Samples) -> Samples:
    inputs = torch.cat([first.inputs, second.inputs])
    return Samples(inputs, torch.cat([first.labels, second.labels]))


def same(first: nn.Module, second: nn.Module) -> bool:
    ours, theirs = first.state_dict(), second.state_dict()
    return all(ours[name].equal(theirs[name]) for name in ours)


def statistics(model: nn.Module) -> Tensor:
    return torch.cat([each.flatten().double() for each in model.buffers()])


def right(network: Network, samples: Samples) -> float:
    return (network.outputs(samples, 64)[1].argmax(1) == samples.labels).double().mean().item()


def accuracy(given: Given, model: nn.Module, samples: Samples) -> float:
    return right(given.original.around(model), samples)


def mean_loss(given: Given, model: nn.Module | None, samples: Samples) -> float:
    network = given.original if model is None else given.original.around(model)
    return F.cross_entropy(network.outputs(samples, 64)[1], samples.labels).item()
