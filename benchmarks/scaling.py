"""What an unlearning job costs when the dataset grows and the forget set does not.

`make bench-scaling` starts a stack of its own, registers synthetic images at three sizes with one
small trained CNN, makes each forget 200 scattered samples several times in turn, prints a table and
writes benchmarks/results/scaling.json and scaling.png.
"""

import argparse
import json
import os
import statistics
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any
from uuid import uuid4

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import psutil  # type: ignore[import-untyped]
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from matplotlib import pyplot as plt
from safetensors.torch import save_model

from benchmarks import cifar_models
from benchmarks.cifar_models import Recipe
from devstack import local
from worker.unlearning.samples import Samples

RESULTS = Path(__file__).parent / "results"
CLASSES = 10
SHAPE = (3, 16, 16)
HELD_OUT = 5_000
"""Number of hold-out samples, and of test samples; the same for every size."""

TRAINED_ON = 10_000
"""Number of samples the CNN is trained on; its weights serve every size."""

FORGOTTEN = 200
ROW_GROUP = 1_000
BLOCK = 50_000
"""Rows made at a time; divides the size of every dataset except the smallest."""

WATCH_S = 0.02
LIMIT = 1.2
"""The most that the dearest size may cost, relative to the cheapest."""

COLUMNS = {"sample_id": "sample_id", "input": "image", "label": "label", "split": "split"}
NORMALISED = {"mean": [0.5] * 3, "std": [0.25] * 3}


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """One dataset, and the cost of its jobs."""

    train_samples: int
    file_mb: float
    indexing_s: float
    registration_s: float
    job_s: list[float] = field(default_factory=list)
    """From claim to outcome, from the API, including the start of the process."""

    cpu_s: list[float] = field(default_factory=list)
    """Processor time of the job's process, which other load hardly changes."""

    peak_mb: list[float] = field(default_factory=list)
    """Peak resident memory of the job's process."""


@dataclass(slots=True)
class Watched:
    """What the job's process has used so far."""

    cpu_s: float = 0
    peak_mb: float = 0

    def look(self, process: psutil.Process) -> None:
        """Record a process, unless it has just ended."""
        with suppress(psutil.NoSuchProcess), process.oneshot():
            self.peak_mb = max(self.peak_mb, process.memory_info().rss / 2**20)
            spent = process.cpu_times()
            self.cpu_s = max(self.cpu_s, spent.user + spent.system)


def main() -> None:
    """Measure, print, plot."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--jobs", type=int, default=5, help="of each size")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        sizes = measure(Path(name), options.sizes, options.jobs)
    spread = {name: _spread(sizes, name) for name in ("job_s", "cpu_s", "peak_mb")}
    report = {
        "cores": os.cpu_count(),
        "forgotten": FORGOTTEN,
        "row_group": ROW_GROUP,
        "limit": LIMIT,
        "dearest_to_cheapest_median": spread,
        "flat": max(spread.values()) <= LIMIT,
        "sizes": [asdict(size) for size in sizes],
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "scaling.json").write_text(json.dumps(report, indent=1) + "\n")
    plot(sizes, RESULTS / "scaling.png")
    print(table(sizes))
    ratios = ", ".join(f"{name} {ratio:.2f}" for name, ratio in spread.items())
    print(f"\ndearest to cheapest size: {ratios} (at most {LIMIT})")


def measure(folder: Path, counts: Sequence[int], jobs: int) -> list[Size]:
    """Register every size, then run their jobs in turns, so that a busy minute affects all."""
    data = folder / "data"
    data.mkdir()
    write_weights(data / "cnn.safetensors")
    with local.stack(
        folder / "stack",
        LETHE_DATA_ROOTS=json.dumps([str(data)]),
        LETHE_FACTORIES='["benchmarks.cifar_models:cnn"]',
    ) as home:
        client = local.Client(home)
        sizes = [registered(client, data, count) for count in counts]
        for turn in range(jobs):
            for size in sizes:
                job_s, used = forget(client, home, size.train_samples, turn)
                size.job_s.append(job_s)
                size.cpu_s.append(used.cpu_s)
                size.peak_mb.append(used.peak_mb)
                print(
                    f"{size.train_samples:>12,} {job_s:8.2f} s, of the processor "
                    f"{used.cpu_s:.2f} s, {used.peak_mb:.0f} MB",
                    flush=True,
                )
    return sizes


def registered(client: local.Client, data: Path, count: int) -> Size:
    """The dataset with this many training samples, written and registered with its model."""
    path = data / f"{_name(count)}.parquet"
    write_dataset(path, count)
    started = perf_counter()
    dataset = {"name": _name(count), "uri": path.as_uri(), "columns": COLUMNS,
               "kind": "pixels", "input_shape": SHAPE}  # fmt: skip
    _ready(client.settled(client.post("/v1/datasets", dataset), timeout_s=3600))
    indexed = perf_counter()
    model = {
        "name": _name(count),
        "dataset": _name(count),
        "weights": (data / "cnn.safetensors").as_uri(),
        "architecture": {"kind": "python", "factory": "benchmarks.cifar_models:cnn"},
        "head": "head",
        "preprocessing": NORMALISED,
        "policy": {"escalation": []},  # one round each, whatever the verdict
    }
    _ready(client.settled(client.post("/v1/models", model), timeout_s=3600))
    size = Size(
        train_samples=count,
        file_mb=round(path.stat().st_size / 2**20, 1),
        indexing_s=round(indexed - started, 1),
        registration_s=round(perf_counter() - indexed, 1),
    )
    print(f"{count:>12,} registered in {size.indexing_s} + {size.registration_s} s", flush=True)
    return size


def forget(client: local.Client, home: local.Stack, count: int, turn: int) -> tuple[float, Watched]:
    """Seconds and use of a job that forgets samples nobody has named before."""
    request = {"model": _name(count), "sample_ids": scattered_ids(count, turn), "urgent": True}
    with watched(home) as used:
        where = client.post("/v1/deletion-requests", request, **{"Idempotency-Key": str(uuid4())})
        done = client.settled(where, timeout_s=600)
    job = client.get(f"/v1/jobs/{done['targets'][0]['job_id']}")
    if job["status"] != "completed":
        raise RuntimeError(f"the job did not complete: {job['failure']}")
    return float(job["duration_seconds"]), used


def scattered_ids(count: int, turn: int) -> list[str]:
    """Ids spread over the dataset, different ones in every turn."""
    order = np.random.default_rng(0).permutation(count)
    return [_sample_id("train", n) for n in order[turn * FORGOTTEN : (turn + 1) * FORGOTTEN]]


@contextmanager
def watched(home: local.Stack) -> Iterator[Watched]:
    """Watch the processes of jobs that the worker starts meanwhile."""
    earlier = {job.pid for job in home.jobs("worker")}
    used, over = Watched(), threading.Event()

    def watch() -> None:
        while not over.wait(WATCH_S):
            for job in home.jobs("worker"):
                if job.pid not in earlier:
                    used.look(job)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield used
    finally:
        over.set()
        thread.join()


def write_weights(path: Path) -> None:
    """Train the CNN on the samples that every size begins with."""
    pixels, labels = images(0, TRAINED_ON)
    torch.set_num_threads(2)
    inputs = torch.from_numpy(pixels).view(-1, *SHAPE)
    samples = Samples(inputs, torch.from_numpy(labels))
    save_model(cifar_models.train(samples, Recipe(epochs=4)), str(path))


def write_dataset(path: Path, count: int) -> None:
    """Write `count` training samples, then those of the hold-out and of the test split."""
    writer = None
    for split, first_of_split, rows in (
        ("train", 0, count), ("holdout", 10**9, HELD_OUT), ("test", 2 * 10**9, HELD_OUT),
    ):  # fmt: skip
        for first in range(0, rows, BLOCK):
            batch = block(split, first, first_of_split, min(BLOCK, rows - first))
            writer = writer or pq.ParquetWriter(path, batch.schema)
            writer.write_table(batch, row_group_size=ROW_GROUP)
    assert writer is not None
    writer.close()


def block(split: str, first: int, offset: int, rows: int) -> pa.Table:
    pixels, labels = images(offset + first, rows)
    return pa.table({
        "sample_id": [_sample_id(split, first + row) for row in range(rows)],
        "image": pa.FixedSizeListArray.from_arrays(pa.array(pixels.ravel()), pixels.shape[1]),
        "label": labels,
        "split": [split] * rows,
    })  # fmt: skip


def images(first: int, count: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """uint8 pixels (count, 768) and labels (count,): a faint pattern for each class, and noise."""
    patterns = np.random.default_rng(0).normal(0, 24, (CLASSES, int(np.prod(SHAPE))))
    rng = np.random.default_rng([1, first])
    labels = rng.integers(0, CLASSES, count)
    noise = rng.normal(128, 64, (count, patterns.shape[1])).astype(np.float32)
    return (noise + patterns[labels]).clip(0, 255).astype(np.uint8), labels


def table(sizes: list[Size]) -> str:
    """In Markdown."""
    lines = [
        "| training samples | indexing s | registration s | job s, median [min, max] "
        "| processor s | peak MB |",
        "|---|---|---|---|---|---|",
    ]
    for size in sizes:
        low, middle, high = min(size.job_s), statistics.median(size.job_s), max(size.job_s)
        lines.append(
            f"| {size.train_samples:,} | {size.indexing_s} | {size.registration_s} | "
            f"{middle:.1f} [{low:.1f}, {high:.1f}] | {statistics.median(size.cpu_s):.1f} | "
            f"{statistics.median(size.peak_mb):.0f} |"
        )
    return "\n".join(lines)


def plot(sizes: list[Size], path: Path) -> None:
    """Time and memory against the number of training samples, beside registration."""
    mpl.use("agg")
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    counts = [size.train_samples for size in sizes]
    registration = [size.indexing_s + size.registration_s for size in sizes]
    axes[0].plot(counts, registration, "s--", color="tab:grey", label="indexing and registration")
    _curve(axes[0], sizes, "job_s", f"a job that forgets {FORGOTTEN}")
    _curve(axes[1], sizes, "peak_mb", "peak of the job's process")
    axes[0].set(yscale="log", ylabel="seconds")
    axes[1].set(ylabel="resident memory, MB", ylim=(0, None))
    for axis in axes:
        axis.set(xscale="log", xlabel="training samples")
        axis.grid(visible=True, alpha=0.3)
        axis.legend()
    figure.savefig(path, dpi=120)


def _curve(axis: Any, sizes: list[Size], name: str, label: str) -> None:
    middle = [statistics.median(getattr(size, name)) for size in sizes]
    axis.plot([size.train_samples for size in sizes], middle, "o-", label=label)
    for size in sizes:
        values = getattr(size, name)
        axis.plot([size.train_samples] * len(values), values, ".", color="tab:blue", alpha=0.4)


def _spread(sizes: list[Size], name: str) -> float:
    """Largest to smallest median over the sizes."""
    medians = [statistics.median(getattr(size, name)) for size in sizes]
    return float(max(medians) / min(medians))


def _ready(row: dict[str, Any]) -> None:
    if row["status"] != "ready":
        raise RuntimeError(row["failure"])


def _name(count: int) -> str:
    return f"images-{count}"


def _sample_id(split: str, number: int) -> str:
    return f"{split}/{number:09d}"


if __name__ == "__main__":
    main()
