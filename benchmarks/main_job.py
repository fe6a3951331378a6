"""The main job on CIFAR-10 through the running service: its quality and relative cost.

`python -m benchmarks.main_job` starts a stack of its own, registers 10,000 training images and a
trained CNN over HTTP, asks for 1,000 random ones to be forgotten, prints a table and writes
benchmarks/results/main_job.json.
"""

import argparse
import json
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any
from uuid import uuid4

import torch
from safetensors.torch import save_model

from benchmarks import cifar_models
from benchmarks.cifar_models import Recipe
from devstack import local
from worker.unlearning.samples import Samples

ROOT = Path(__file__).parents[1]
FORGOTTEN = 1000
COLUMNS = {"sample_id": "sample_id", "input": "image", "label": "label", "split": "split"}


def main() -> None:
    """Run it once and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--cache", type=Path, default=ROOT / ".cache" / "cifar")
    options = parser.parse_args()
    torch.set_num_threads(2)
    data = cifar_models.prepare_data(options.data, options.cache)
    trained, _ = cifar_models.trained_model(data.train, Recipe(), options.cache)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "data"
        folder.mkdir()
        cifar_models.write_dataset(options.data, folder)
        save_model(trained, str(folder / "cnn.safetensors"))
        job = unlearn_through_the_service(Path(name), folder)
    retraining_s = retraining_seconds(data.train.select(torch.arange(len(data.train) - FORGOTTEN)))
    result = {
        "forgotten": FORGOTTEN,
        "job_seconds": job["duration_seconds"],
        "retraining_seconds": retraining_s,
        "time_ratio": job["duration_seconds"] / retraining_s,
        "config": job["config"],
        "before": job["before"],
        "cycles": job["cycles"],
        "after": job["after"],
    }
    (ROOT / "benchmarks" / "results" / "main_job.json").write_text(json.dumps(result, indent=1))
    print(table(result))


def unlearn_through_the_service(state: Path, folder: Path) -> dict[str, Any]:
    """The finished job, from the API."""
    with local.stack(
        state,
        LETHE_DATA_ROOTS=json.dumps([str(folder)]),
        LETHE_FACTORIES='["benchmarks.cifar_models:cnn"]',
    ) as home:
        client = local.Client(home)
        dataset = {"name": "cifar", "uri": folder.as_uri(), "kind": "image", "columns": COLUMNS}
        ready = client.settled(client.post("/v1/datasets", dataset))
        model = {
            "name": "cnn",
            "dataset": "cifar",
            "weights": (folder / "cnn.safetensors").as_uri(),
            "architecture": {"kind": "python", "factory": "benchmarks.cifar_models:cnn"},
            "head": "head",
            "preprocessing": {"mean": [0.4914, 0.4822, 0.4465], "std": [0.2470, 0.2435, 0.2616]},
        }
        ready = client.settled(client.post("/v1/models", model))
        if ready["status"] != "ready":
            raise RuntimeError(ready["failure"])
        request = {"model": "cnn", "sample_ids": random_ids(folder), "urgent": True}
        where = client.post("/v1/deletion-requests", request, **{"Idempotency-Key": str(uuid4())})
        done = client.settled(where, timeout_s=3600)
        return client.get(f"/v1/jobs/{done['targets'][0]['job_id']}")


def random_ids(folder: Path) -> list[str]:
    """The same random training ids in every run."""
    ids = cifar_models.sample_ids(folder / "train.parquet")
    order = torch.randperm(len(ids), generator=torch.Generator().manual_seed(0))
    return [ids[int(n)] for n in order[:FORGOTTEN]]


def retraining_seconds(samples: Samples) -> float:
    """How long retraining takes on this machine under its present load, from two epochs."""
    started = perf_counter()
    cifar_models.train(samples, Recipe(seed=1, epochs=2))
    return (perf_counter() - started) / 2 * Recipe().epochs


def table(result: dict[str, Any]) -> str:
    """Before and after in Markdown."""
    lines = ["| | before | after |", "|---|---|---|"]
    figures = [{**result[m]["figures"], **result[m]} for m in ("before", "after")]
    for name in (
        "forget_accuracy", "retain_accuracy", "holdout_accuracy", "test_accuracy", "da_forget",
        "da_holdout", "da_gap", "da_gap_low", "da_gap_high", "membership_auc",
    ):  # fmt: skip
        lines.append(f"| {name} | {figures[0][name]:.4f} | {figures[1][name]:.4f} |")
    lines.append(
        f"\njob {result['job_seconds']:.0f} s, retraining {result['retraining_seconds']:.0f} s, "
        f"ratio {result['time_ratio']:.2f}"
    )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
