"""A model and a dataset so small that a job on them takes a second or two.

Points with eight features in three classes, and an MLP that has memorised its training samples.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
import torch.nn.functional as F
from safetensors.torch import save_model
from torch import nn

FEATURES, CLASSES = 8, 3
TRAIN, HOLDOUT, TEST = 1500, 300, 100

FACTORY = "chaos.samples:mlp"


def mlp(width: int = 24) -> nn.Module:
    """A classifier of vectors; `width` features enter `head`."""
    model = nn.Sequential()
    model.add_module("first", nn.Linear(FEATURES, 2 * width))
    model.add_module("relu1", nn.ReLU())
    model.add_module("second", nn.Linear(2 * width, width))
    model.add_module("relu2", nn.ReLU())
    model.add_module("head", nn.Linear(width, CLASSES))
    return model


@dataclass(frozen=True, slots=True)
class Files:
    """The files of a dataset and a trained model, and the sample ids that may be named."""

    dataset: Path
    weights: Path
    table: pa.Table
    train_ids: list[str]
    holdout_ids: list[str]


def write(folder: Path, *, seed: int) -> Files:
    """Draw a dataset and train a model on it."""
    folder.mkdir(parents=True, exist_ok=True)
    dice = np.random.default_rng(seed)
    total = TRAIN + HOLDOUT + TEST
    inputs = dice.normal(size=(total, FEATURES)).astype(np.float32)
    scores = inputs @ dice.normal(size=(FEATURES, CLASSES)) + dice.normal(size=(total, CLASSES))
    labels = scores.argmax(axis=1)
    splits = ["train"] * TRAIN + ["holdout"] * HOLDOUT + ["test"] * TEST
    ids = [f"{split}-{number:04d}" for number, split in enumerate(splits)]
    table = pa.table({"sample_id": ids, "input": list(inputs), "label": labels, "split": splits})
    dataset, weights = folder / "points.parquet", folder / "mlp.safetensors"
    pq.write_table(table, dataset)
    train(table.slice(0, TRAIN), weights, seed=seed)
    return Files(dataset, weights, table, ids[:TRAIN], ids[TRAIN : TRAIN + HOLDOUT])


def next_state(table: pa.Table, number: int) -> pa.Table:
    """The dataset a month later: the last training sample is gone, and two have come."""
    in_training = pc.equal(table["split"], "train")
    last = pc.max(table.filter(in_training)["sample_id"])
    new = table.filter(in_training).slice(0, 2)
    ids = pa.array([f"train-{8000 + 2 * number + place}" for place in range(2)])
    come = new.set_column(0, "sample_id", ids)
    return pa.concat_tables([table.filter(pc.not_equal(table["sample_id"], last)), come])


def train(rows: pa.Table, weights: Path, *, seed: int) -> None:
    """Train a model on these rows, and write its weights."""
    inputs, labels = np.stack(rows["input"].to_numpy()), rows["label"].to_numpy().copy()
    save_model(_trained(inputs, labels, seed), str(weights))


def _trained(inputs: np.ndarray, labels: np.ndarray, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    model, x, y = mlp(), torch.from_numpy(inputs), torch.from_numpy(labels)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(300):
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()  # type: ignore[no-untyped-call]  # torch
        optimizer.step()
    return model.eval()
