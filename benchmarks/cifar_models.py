"""CIFAR-10 samples and small trained models for the benchmarks, cached on disk.

Nothing of it enters git: the cache folder ignores itself.
"""

import hashlib
import io
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from worker.unlearning.samples import Samples, batch_indices

CLASSES = ["airplane", "automobile", "bird", "cat", "deer"]
CLASSES += ["dog", "frog", "horse", "ship", "truck"]
TRAIN_SAMPLES, HOLDOUT_SAMPLES = 10_000, 5_000


@dataclass(frozen=True, slots=True)
class Data:
    """Three splits of CIFAR-10; images are uint8 (N, 3, 32, 32)."""

    train: Samples
    holdout: Samples
    test: Samples


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a model is trained, from initialisation to the last step."""

    seed: int = 0
    epochs: int = 18
    batch_size: int = 128
    lr: float = 0.1
    weight_decay: float = 5e-4


def cnn(classes: int = 10) -> nn.Module:
    """A small batch-normalised CNN for float images (N, 3, 32, 32); its head reads 128 features.

    Narrow, and pooled before it is normalised: a training takes a third of the time of the network
    twice as wide, so that two cores can train the forty that the quality benchmark compares.
    """
    layers: list[nn.Module] = []
    for before, after in ((3, 16), (16, 32), (32, 64)):
        layers += [nn.Conv2d(before, after, 3, padding=1, bias=False), nn.MaxPool2d(2)]
        layers += [nn.BatchNorm2d(after), nn.ReLU()]
    layers += [nn.Conv2d(64, 128, 3, padding=1, bias=False), nn.BatchNorm2d(128), nn.ReLU()]
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model.add_module("head", nn.Linear(128, classes))
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch
    return model


def prepare(images: Tensor) -> Tensor:
    """Stored uint8 images as the float images `cnn` takes, normalised per channel."""
    mean = torch.tensor([0.4914, 0.4822, 0.4465], device=images.device)[:, None, None]
    deviation = torch.tensor([0.2470, 0.2435, 0.2616], device=images.device)[:, None, None]
    scaled = (images.float() / 255 - mean) / deviation
    return scaled.contiguous(memory_format=torch.channels_last)


def prepare_data(folder: Path, cache: Path) -> Data:
    """Read and decode the splits, or take them from the cache.

    The training split is a fixed random 10,000 rows of the training file (which is sorted by
    class), the hold-out another 5,000, the test split the whole test file.
    """
    cached = _own_folder(cache) / "data.safetensors"
    if not cached.exists():
        rows = _split_rows()
        read = {
            "train": _read(folder / "cifar10_train.parquet", rows["train"]),
            "holdout": _read(folder / "cifar10_train.parquet", rows["holdout"]),
            "test": _read(folder / "cifar10_test.parquet", rows["test"]),
        }
        save_file({f"{s}.{part}": t for s, parts in read.items() for part, t in parts}, cached)
    tensors = load_file(cached)
    splits = ("train", "holdout", "test")
    return Data(*(Samples(tensors[f"{s}.inputs"], tensors[f"{s}.labels"]) for s in splits))


def write_dataset(images: Path, folder: Path) -> None:
    """Write the same three splits as a user's dataset: JPEG bytes, one file for each split."""
    rows = _split_rows()
    for split, name in (("train", "train"), ("holdout", "train"), ("test", "test")):
        table = pq.read_table(images / f"cifar10_{name}.parquet").take(rows[split].numpy())
        table = table.append_column("split", pa.array([split] * table.num_rows))
        pq.write_table(table, folder / f"{split}.parquet", row_group_size=1000)


def sample_ids(path: Path) -> list[str]:
    """The ids in a file that `write_dataset` wrote."""
    ids: list[str] = pq.read_table(path, columns=["sample_id"])["sample_id"].to_pylist()
    return ids


def _split_rows() -> dict[str, Tensor]:
    """Rows of the training file and, for the test split, of the test file."""
    rows = torch.randperm(50_000, generator=torch.Generator().manual_seed(0))
    train, holdout = rows[:TRAIN_SAMPLES], rows[TRAIN_SAMPLES:][:HOLDOUT_SAMPLES]
    return {"train": train, "holdout": holdout, "test": torch.arange(10_000)}


def train(samples: Samples, recipe: Recipe) -> nn.Module:
    """Train a new `cnn`: SGD with momentum, one warm-up and one cool-down of the rate."""
    generator = torch.Generator().manual_seed(recipe.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        model = cnn().train()
    optimizer = torch.optim.SGD(
        model.parameters(), recipe.lr, momentum=0.9, nesterov=True, weight_decay=recipe.weight_decay
    )
    steps = recipe.epochs * -(-len(samples) // recipe.batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, recipe.lr, total_steps=steps, pct_start=0.25
    )
    for _ in range(recipe.epochs):
        for chosen in batch_indices(len(samples), recipe.batch_size, generator):
            loss = F.cross_entropy(model(prepare(samples.inputs[chosen])), samples.labels[chosen])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch
            optimizer.step()
            schedule.step()
    return model.eval()


def trained_model(samples: Samples, recipe: Recipe, cache: Path) -> tuple[nn.Module, float]:
    """A model trained on these samples, and the seconds its training took when it was trained.

    Cached under the hash of the recipe, the architecture and the samples.
    """
    digest = hashlib.sha256(json.dumps([asdict(recipe), str(cnn())]).encode())
    digest.update(samples.inputs.numpy().tobytes() + samples.labels.numpy().tobytes())
    weights = _own_folder(cache) / f"{digest.hexdigest()[:16]}.safetensors"
    timing = weights.with_suffix(".json")
    if not timing.exists():
        started = perf_counter()
        model = train(samples, recipe)
        seconds = perf_counter() - started
        save_file({name: t.contiguous() for name, t in model.state_dict().items()}, weights)
        timing.write_text(json.dumps({"seconds": seconds, "recipe": asdict(recipe)}))
    model = cnn().eval()
    model.load_state_dict(load_file(weights))
    return model, json.loads(timing.read_text())["seconds"]


def _read(path: Path, rows: Tensor) -> list[tuple[str, Tensor]]:
    table = pq.read_table(path, columns=["image", "label"]).take(rows.numpy())
    images = [np.asarray(Image.open(io.BytesIO(image))) for image in table["image"].to_pylist()]
    inputs = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()
    labels = torch.tensor(table["label"].to_pylist(), dtype=torch.int64)
    return [("inputs", inputs), ("labels", labels)]


def _own_folder(cache: Path) -> Path:
    cache.mkdir(parents=True, exist_ok=True)
    (cache / ".gitignore").write_text("*\n")
    return cache
