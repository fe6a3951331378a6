"""CIFAR-10 samples and small trained models for the benchmarks, cached on disk.

Git never sees them: the cache folder ignores itself.
"""

import hashlib
import io
import json
from collections.abc import Callable
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

Build = Callable[[], nn.Module]


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

    Narrow, and pooled before normalisation: training takes a third of the time of a network twice
    as wide, so that two cores can train the forty that the quality benchmark compares.
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


class _Residual(nn.Module):
    """Two convolutions with a shortcut around them."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(after)
        self.around = (
            nn.Identity()
            if before == after
            else nn.Sequential(
                nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after)
            )
        )

    def forward(self, inputs: Tensor) -> Tensor:
        through = F.relu(self.norm1(self.conv1(inputs)))
        return F.relu(self.norm2(self.conv2(through)) + self.around(inputs))


def resnet18(classes: int = 10) -> nn.Module:
    """ResNet-18 with a stem for float images (N, 3, 32, 32): 3 x 3, stride 1, no pooling.

    Source: He et al., "Deep Residual Learning", 2015, arXiv:1512.03385.
    """
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64)]
    layers.append(nn.ReLU())
    for before, after, stride in ((64, 64, 1), (64, 128, 2), (128, 256, 2), (256, 512, 2)):
        layers += [_Residual(before, after, stride), _Residual(after, after, 1)]
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model.add_module("head", nn.Linear(512, classes))
    return model


def prepare(images: Tensor) -> Tensor:
    """Stored uint8 images as the float images that `cnn` takes, normalised per channel."""
    mean = torch.tensor([0.4914, 0.4822, 0.4465], device=images.device)[:, None, None]
    deviation = torch.tensor([0.2470, 0.2435, 0.2616], device=images.device)[:, None, None]
    scaled = (images.float() / 255 - mean) / deviation
    return scaled.contiguous(memory_format=torch.channels_last)


def prepare_data(
    folder: Path,
    cache: Path,
    *,
    train_samples: int = TRAIN_SAMPLES,
    holdout_samples: int = HOLDOUT_SAMPLES,
    test_samples: int | None = None,
) -> Data:
    """Read and decode the splits, or take them from the cache.

    The training split is a fixed random choice from the training file (which is sorted by class),
    the hold-out another one, the test split the whole test file. If the training file has too few
    rows for both, the hold-out comes from the test file, and the rest of that file is the test
    split.
    """
    cached = _own_folder(cache) / "data.safetensors"
    if not cached.exists():
        rows = _split_rows(folder, train_samples, holdout_samples, test_samples)
        read = {split: _read(path, places) for split, (path, places) in rows.items()}
        save_file({f"{s}.{part}": t for s, parts in read.items() for part, t in parts}, cached)
    tensors = load_file(cached)
    splits = ("train", "holdout", "test")
    return Data(*(Samples(tensors[f"{s}.inputs"], tensors[f"{s}.labels"]) for s in splits))


def write_dataset(
    images: Path,
    folder: Path,
    *,
    train_samples: int = TRAIN_SAMPLES,
    holdout_samples: int = HOLDOUT_SAMPLES,
    test_samples: int | None = None,
) -> None:
    """Write the same three splits as a user's dataset: JPEG bytes, one file per split."""
    rows = _split_rows(images, train_samples, holdout_samples, test_samples)
    for split, (path, places) in rows.items():
        table = pq.read_table(path).take(places.numpy())
        table = table.append_column("split", pa.array([split] * table.num_rows))
        pq.write_table(table, folder / f"{split}.parquet", row_group_size=1000)


def sample_ids(path: Path) -> list[str]:
    """The ids in a file that `write_dataset` wrote."""
    ids: list[str] = pq.read_table(path, columns=["sample_id"])["sample_id"].to_pylist()
    return ids


def _split_rows(
    folder: Path, train_samples: int, holdout_samples: int, test_samples: int | None
) -> dict[str, tuple[Path, Tensor]]:
    """The file of each split, and its number of rows."""
    train_file, test_file = (folder / f"cifar10_{name}.parquet" for name in ("train", "test"))
    rows, tests = (
        torch.randperm(
            pq.ParquetFile(path).metadata.num_rows, generator=torch.Generator().manual_seed(0)
        )
        for path in (train_file, test_file)
    )
    train, spare = rows[:train_samples], rows[train_samples:][:holdout_samples]
    if len(spare) == holdout_samples:
        holdout, test = (train_file, spare), (test_file, tests.sort().values)
    else:
        holdout, test = (test_file, tests[:holdout_samples]), (test_file, tests[holdout_samples:])
    test = (test[0], test[1][:test_samples])
    return {"train": (train_file, train), "holdout": holdout, "test": test}


def train(samples: Samples, recipe: Recipe, build: Build = cnn, device: str = "cpu") -> nn.Module:
    """Train a new model: SGD with momentum, and a learning rate with warm-up and cool-down.

    On a GPU it uses bfloat16, and channels-last samples and convolutions.
    """
    generator = torch.Generator().manual_seed(recipe.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        model = build().train()
    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch
    inputs, labels = samples.inputs.to(device), samples.labels.to(device)
    lowered = torch.autocast(device, torch.bfloat16, enabled=device != "cpu")
    optimizer = torch.optim.SGD(
        model.parameters(), recipe.lr, momentum=0.9, nesterov=True, weight_decay=recipe.weight_decay
    )
    steps = recipe.epochs * -(-len(samples) // recipe.batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, recipe.lr, total_steps=steps, pct_start=0.25
    )
    for _ in range(recipe.epochs):
        for chosen in batch_indices(len(samples), recipe.batch_size, generator):
            chosen = chosen.to(device)
            with lowered:
                loss = F.cross_entropy(model(prepare(inputs[chosen])), labels[chosen])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch
            optimizer.step()
            schedule.step()
    return model.eval()


def trained_model(
    samples: Samples, recipe: Recipe, cache: Path, build: Build = cnn, device: str = "cpu"
) -> tuple[nn.Module, float]:
    """A model trained on these samples, and the seconds its training took.

    Cached under the hash of the recipe, the architecture and the samples.
    """
    digest = hashlib.sha256(json.dumps([asdict(recipe), str(build())]).encode())
    digest.update(samples.inputs.numpy().tobytes() + samples.labels.numpy().tobytes())
    weights = _own_folder(cache) / f"{digest.hexdigest()[:16]}.safetensors"
    timing = weights.with_suffix(".json")
    if not timing.exists():
        started = perf_counter()
        model = train(samples, recipe, build, device)
        seconds = perf_counter() - started
        save_file({name: t.contiguous() for name, t in model.state_dict().items()}, weights)
        timing.write_text(json.dumps({"seconds": seconds, "recipe": asdict(recipe)}))
    model = build().eval()
    model.load_state_dict(load_file(weights))
    return model.to(device), json.loads(timing.read_text())["seconds"]


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
