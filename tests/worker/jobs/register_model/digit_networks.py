"""Small networks for handwritten digits, and the digits."""

import numpy as np
import pyarrow as pa
from sklearn.datasets import load_digits
from torch import nn

DIGITS = load_digits()
NAMES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
PARTS = np.array(["train", "train", "train", "valid", "test"])[np.arange(1797) % 5]
PREPROCESSING = {"scale": 1 / 16, "mean": [0.5], "std": [0.5]}
POLICY = {"reservoir_samples": 200, "evaluation_samples": 150}


def convolutional(classes: int = 10) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(128, 16), nn.ReLU(), nn.Linear(16, classes),
    )  # fmt: skip


class Twice(nn.Module):
    """Enters its head twice."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(64, 10), nn.Linear(10, 10)

    def forward(self, x):
        return self.head(self.head(self.body(x.flatten(1))))


class Idle(Twice):
    """Never enters its head."""

    def forward(self, x):
        return self.body(x.flatten(1))


class Choosy(nn.Module):
    """Wants other inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(63, 10)

    def forward(self, x):
        return self.head(x.flatten(1))


TOY_MODELS = [f"toy_models:{name}" for name in ("convolutional", "Twice", "Idle", "Choosy")]


def digits_table(count: int = 1797) -> pa.Table:
    pixels = DIGITS.data[:count].astype(np.uint8).tolist()
    return pa.table({
        "id": [f"digit-{n}" for n in range(count)],
        "pixels": pa.array(pixels, pa.list_(pa.uint8())),
        "digit": DIGITS.target[:count],
        "part": PARTS[:count],
    })  # fmt: skip
