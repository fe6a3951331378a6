"""A toy classifier that has memorised its training set; trained once per run."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worker.unlearning.alignment import Moments
from worker.unlearning.network import Network
from worker.unlearning.samples import Samples

CLASSES, PIXELS = 4, 12


@dataclass(frozen=True)
class Problem:
    """Everything `unlearn` and `evaluate` take, before samples are chosen to be forgotten."""

    network: Network
    train: Samples
    holdout: Samples

    def forgetting(self, forgotten: Tensor) -> dict[str, object]:
        """The arguments of `unlearn` that follow from a mask over the training set."""
        retain = self.train.select(~forgotten)
        features, logits = self.network.outputs(retain, 64)
        return {
            "forget": self.train.select(forgotten),
            "retain": retain,
            "retain_logits": logits,
            "holdout": self.holdout,
            "moments": Moments.of(features),
            "class_counts": retain.labels.bincount(minlength=CLASSES),
        }


def draw(count: int, generator: torch.Generator) -> Samples:
    """uint8 images whose class shows in one bright patch, not always clearly."""
    labels = torch.arange(count) % CLASSES
    centres = F.one_hot(labels, CLASSES).repeat_interleave(PIXELS // CLASSES, 1) * 60
    noise = torch.randn(count, PIXELS, generator=generator) * 75
    return Samples((centres + noise + 100).clamp(0, 255).to(torch.uint8), labels)


def scaled(inputs: Tensor) -> Tensor:
    return inputs.float() / 128 - 1


def batch_normalised() -> nn.Module:
    return nn.Sequential(
        nn.Linear(PIXELS, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(),
        nn.Linear(32, CLASSES),
    )  # fmt: skip


def plain() -> nn.Module:
    return nn.Sequential(
        nn.Linear(PIXELS, 64), nn.Identity(), nn.ReLU(), nn.Linear(64, 32), nn.Dropout(0.1),
        nn.Linear(32, CLASSES),
    )  # fmt: skip


def trained(build: Callable[[], nn.Module]) -> Problem:
    generator = torch.Generator().manual_seed(0)
    train, holdout = draw(240, generator), draw(200, generator)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build()
        optimizer = torch.optim.Adam(model.parameters(), 0.01, fused=True)
        for _ in range(60):
            for inputs, labels in train.batches(40, generator):
                optimizer.zero_grad()
                F.cross_entropy(model(scaled(inputs)), labels).backward()
                optimizer.step()
    return Problem(Network(model.eval(), head="5", prepare=scaled), train, holdout)


@pytest.fixture(scope="session", params=[batch_normalised, plain])
def problem(request: pytest.FixtureRequest) -> Problem:
    return trained(request.param)
