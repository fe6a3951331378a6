"""A dataset and a trained model as a user brings them: `python -m devstack.demo.digits FOLDER`.

scikit-learn's handwritten digits, 1,797 real images, written as Parquet; a small CNN trained on
them and saved as safetensors. The service only ever sees the files.
"""

import io
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_model
from torch import Tensor, nn

TRAIN, HOLDOUT = 1000, 400
"""Images of each split; the remaining 397 are the test split."""

DATASET = "digits.parquet"
WEIGHTS = "digits-cnn.safetensors"


def cnn(width: int = 32, classes: int = 10) -> nn.Module:
    """A classifier of 8 x 8 grey images; 2 x `width` features enter `head`."""
    model = nn.Sequential()
    model.add_module("conv1", nn.Conv2d(1, width, 3, padding=1, bias=False))
    model.add_module("norm1", nn.BatchNorm2d(width))
    model.add_module("relu1", nn.ReLU())
    model.add_module("pool1", nn.MaxPool2d(2))
    model.add_module("conv2", nn.Conv2d(width, 2 * width, 3, padding=1, bias=False))
    model.add_module("norm2", nn.BatchNorm2d(2 * width))
    model.add_module("relu2", nn.ReLU())
    model.add_module("pool2", nn.AdaptiveAvgPool2d(1))
    model.add_module("flatten", nn.Flatten())
    model.add_module("head", nn.Linear(2 * width, classes))
    return model


def write_dataset(path: Path, *, seed: int = 0, wrong: float = 0.0) -> None:
    """Write all digits as PNG images with stable ids, `digits/0000` to `digits/1796`.

    Args:
        seed: of who is in which split, and of the wrong labels.
        wrong: share of the labels, in every split alike, that say another digit than is drawn.
    """
    from sklearn.datasets import load_digits  # takes two seconds, and every job imports this module

    digits = load_digits()
    pixels = (digits.images * 15).astype(np.uint8)  # 0..16 in the source, 0..240 here
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(pixels))
    splits = np.empty(len(pixels), dtype=object)
    splits[order[:TRAIN]] = "train"
    splits[order[TRAIN : TRAIN + HOLDOUT]] = "holdout"
    splits[order[TRAIN + HOLDOUT :]] = "test"
    others = generator.integers(1, 10, len(pixels))  # how far on the wrong digit is
    mistyped = generator.random(len(pixels)) < wrong
    table = pa.table(
        {
            "sample_id": [f"digits/{number:04d}" for number in range(len(pixels))],
            "image": [_png(image) for image in pixels],
            "label": (digits.target + others * mistyped).astype(np.int64) % 10,
            "split": splits.tolist(),
        }
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=500)


def tensors(table: pa.Table) -> tuple[Tensor, Tensor]:
    """Inputs (N, 1, 8, 8) as the service prepares them, with mode L, and labels (N,) int64."""
    images = torch.stack([_tensor(image) for image in table["image"].to_pylist()])
    return images, torch.tensor(table["label"].to_pylist())


def train(path: Path, *, width: int = 32, epochs: int = 30, seed: int = 0) -> nn.Module:
    """A CNN trained on the train split of the file that `write_dataset` wrote."""
    table = pq.read_table(path, filters=[("split", "=", "train")])
    images, labels = tensors(table)
    torch.manual_seed(seed)
    model = cnn(width)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    for _ in range(epochs):
        for batch in torch.split(torch.randperm(len(labels)), 100):
            loss = F.cross_entropy(model(images[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch
            optimizer.step()
        schedule.step()
    return model.eval()


def prepare(folder: Path, *, width: int = 32) -> None:
    """Write the dataset and the trained model into `folder`."""
    write_dataset(folder / DATASET)
    save_model(train(folder / DATASET, width=width), str(folder / WEIGHTS))


def _png(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def _tensor(png: bytes) -> Tensor:
    """(1, 8, 8) in [0, 1]: the scale of the service is 1/255."""
    with Image.open(io.BytesIO(png)) as image:
        return torch.from_numpy(np.array(image)).float()[None] / 255


if __name__ == "__main__":
    prepare(Path(sys.argv[1]))
