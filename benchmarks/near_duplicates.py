"""How many near-duplicates are found among samples that have none, and among made bursts.

Small CNNs learn 10,000 CIFAR-10 images, of which 1,450 are made: 250 bursts of 2 to 14 images,
shifted by up to three pixels, lighter or darker by up to a tenth, and with noise. One network
learns briefly, one until it knows every image by heart. Besides: windows of random walks that
overlap or do not, handwritten digits, and the time of the search.

    python -m benchmarks.near_duplicates
"""

import argparse
import json
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

from benchmarks.cifar_models import Recipe, prepare, prepare_data, trained_model
from worker.data.likeness import layers_of
from worker.unlearning.near_duplicates import Likeness
from worker.unlearning.network import Network
from worker.unlearning.samples import Samples

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "near_duplicates.json"
SIZES = (2, 3, 4, 6, 14)
BURSTS = 250


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    options.add_argument("--cache", type=Path, default=ROOT / ".cache" / "near-duplicates")
    given = options.parse_args()
    torch.set_num_threads(1)
    rows = [*images(given.data, given.cache), *walks(), digits(), cost(50_000), cost(100_000)]
    RESULTS.write_text(json.dumps(rows, indent=2) + "\n")
    for row in rows:
        print("; ".join(f"{name}: {value}" for name, value in row.items()))


def images(data: Path, cache: Path) -> list[dict[str, Any]]:
    given = prepare_data(data, cache, train_samples=10_000, holdout_samples=2_000).train
    made, groups = bursts(given)
    alone = torch.arange(len(given))
    rows = []
    for name, samples, truth, epochs in (
        ("CIFAR-10 as it is", given, alone, 18),
        ("with bursts, 6 epochs", made, groups, 6),
        ("with bursts, 40 epochs", made, groups, 40),
    ):
        model, _ = trained_model(samples, Recipe(epochs=epochs), cache)
        network = Network(model, head="head", prepare=prepare)
        _, logits = network.outputs(samples, 256)
        right = (logits.argmax(1) == samples.labels).float().mean().item()
        rows.append({**measured(name, network, samples, truth), "accuracy": round(right, 3)})
    return rows


def bursts(samples: Samples) -> tuple[Samples, Tensor]:
    """The samples with some replaced by variants of others, and who belongs together."""
    generator = torch.Generator().manual_seed(1)
    inputs, labels = samples.inputs.clone(), samples.labels.clone()
    order = torch.randperm(len(labels), generator=generator)
    groups, place = torch.arange(len(labels)), 0
    for number in range(BURSTS):
        size = SIZES[number % len(SIZES)]
        first, *others = order[place : place + size].tolist()
        place += size
        wide = F.pad(inputs[first].float()[None], (3, 3, 3, 3), mode="reflect")[0]
        for row in others:
            x, y = torch.randint(0, 7, (2,), generator=generator).tolist()
            variant = wide[:, y : y + 32, x : x + 32]
            variant = variant * (0.9 + 0.2 * torch.rand(1, generator=generator))
            variant = variant + 4 * torch.randn(variant.shape, generator=generator)
            inputs[row] = variant.clamp(0, 255).round().to(torch.uint8)
            labels[row], groups[row] = labels[first], groups[first]
    return Samples(inputs, labels), groups


def walks() -> list[dict[str, Any]]:
    """Windows of 128 steps of 100 random walks with three channels, 20 of each."""
    rows = []
    for name, step in (("apart", 128), ("half overlapping", 64), ("nine tenths overlapping", 12)):
        generator = torch.Generator().manual_seed(0)
        whole = torch.randn(100, 3, 128 + 20 * step, generator=generator).cumsum(2)
        cut = whole.unfold(2, 128, step)[:, :, :20].transpose(1, 2)  # (100, 20, 3, 128)
        windows = ((cut - cut.mean(3, keepdim=True)) / 8).flatten(0, 1).contiguous()
        truth = torch.arange(100).repeat_interleave(20)
        samples = Samples(windows, truth % 2)
        torch.manual_seed(0)
        network = Network(learned(reader(), samples, 4), head="head", prepare=lambda x: x)
        told = truth if step < 128 else torch.arange(len(truth))
        rows.append(measured(f"random walks, windows {name}", network, samples, told))
    return rows


def reader() -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after, width in ((3, 32, 7), (32, 64, 5), (64, 64, 5)):
        layers += [nn.Conv1d(before, after, width, padding=width // 2), nn.BatchNorm1d(after)]
        layers += [nn.ReLU(), nn.MaxPool1d(2)]
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool1d(1), nn.Flatten())
    model.add_module("head", nn.Linear(64, 2))
    return model


def digits() -> dict[str, Any]:
    known = load_digits()
    inputs = torch.tensor(known.images, dtype=torch.float32)[:, None] / 16
    samples = Samples(inputs, torch.tensor(known.target).long())
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU())
    model.add_module("head", nn.Linear(32, 10))
    network = Network(learned(model, samples, 20), head="head", prepare=lambda x: x)
    return measured("1,797 handwritten digits", network, samples, torch.arange(len(inputs)))


def learned(model: nn.Module, samples: Samples, epochs: int) -> nn.Module:
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(epochs):
        for rows in torch.split(torch.randperm(len(samples), generator=generator), 64):  # torch
            optimizer.zero_grad()
            F.cross_entropy(model(samples.inputs[rows]), samples.labels[rows]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return model.eval()


def measured(name: str, network: Network, samples: Samples, truth: Tensor) -> dict[str, Any]:
    """How many samples of a group are found together with another of it, and how many of others
    are taken for near-duplicates."""
    likeness = Likeness()
    _, _, layers = network.looked_into(samples, layers_of(network), 256)
    likeness.add(layers, samples.labels)
    numbers = likeness.found().numbers
    grouped = truth.bincount(minlength=len(truth))[truth] > 1
    pairs = torch.stack([numbers, truth])[:, numbers >= 0]
    _, own, sizes = pairs.unique(dim=1, return_inverse=True, return_counts=True)  # type: ignore[no-untyped-call]
    together = torch.zeros(len(truth), dtype=torch.bool)
    together[numbers >= 0] = sizes[own] > 1
    return {
        "samples": name,
        "in groups": int(grouped.sum()),
        "of these found": int((grouped & together).sum()),
        "alone": int((~grouped).sum()),
        "of these taken for near-duplicates": int((~grouped & (numbers >= 0)).sum()),
    }


def cost(count: int) -> dict[str, Any]:
    """Ten classes, 80 numbers a sample, one thread."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(10, (count,), generator=generator)
    likeness = Likeness()
    for rows in torch.split(torch.arange(count), 10_000):  # torch
        layers = {str(n): torch.randn(len(rows), 16, generator=generator) for n in range(5)}
        likeness.add(layers, labels[rows])
    started = perf_counter()
    likeness.found()
    return {"samples": f"search among {count:,}", "seconds": round(perf_counter() - started, 1)}


if __name__ == "__main__":
    main()
