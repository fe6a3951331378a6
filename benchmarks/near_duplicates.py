"""How many near-duplicates are found among samples that have none, and among made bursts.

Small CNNs learn 10,000 CIFAR-10 images, of which 1,450 are made: 250 bursts of 2 to 14 images,
shifted by up to three pixels, lighter or darker by up to a tenth, and with noise. One network
learns briefly, one until it knows every image by heart. Besides: windows of random walks and of
people wearing a watch that overlap or do not, docstrings of the standard library, handwritten
digits, and the time of both searches.

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

from benchmarks import recordings
from benchmarks.cifar_models import Recipe, prepare, prepare_data, trained_model
from worker.data.likeness import layers_of
from worker.unlearning.near_duplicates import Likeness
from worker.unlearning.network import Network
from worker.unlearning.samples import Samples
from worker.unlearning.shared_stretches import Stretches, united

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
    rows = [*images(given.data, given.cache), *walks(), *watches(), *texts(), digits()]
    rows += [cost(50_000), cost(100_000), cost_of_stretches(100_000)]
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


def watches() -> list[dict[str, Any]]:
    """Windows of 128 steps of the recordings that `seglearn` ships."""
    rows = []
    for name, step in (("apart", 128), ("half overlapping", 64), ("three quarters", 32)):
        samples, truth = recordings.watch(step)
        torch.manual_seed(0)
        network = reader(samples.inputs.shape[1], 7)
        found = Network(learned(network, samples, 4), head="head", prepare=lambda x: x)
        told = truth if step < 128 else torch.arange(len(truth))
        rows.append(measured(f"watch, windows {name}", found, samples, told))
    return rows


def texts() -> list[dict[str, Any]]:
    """Docstrings of at least 20 words and signs, cut after 128."""
    rows = []
    for name, (samples, truth) in recordings.texts().items():
        torch.manual_seed(0)
        model = learned(TextReader(int(samples.inputs.max()) + 1), samples, 4)
        network = Network(model, head="head", prepare=lambda x: x)
        rows.append(measured(name, network, samples, truth, tokens=True))
    return rows


class TextReader(nn.Module):
    def __init__(self, words: int) -> None:
        super().__init__()
        self.embed = nn.EmbeddingBag(words, 32, padding_idx=0)
        self.body, self.head = nn.Linear(32, 32), nn.Linear(32, 2)

    def forward(self, tokens: Tensor) -> Tensor:
        answer: Tensor = self.head(self.body(self.embed(tokens)).relu())
        return answer


def reader(channels: int = 3, classes: int = 2) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after, width in ((channels, 32, 7), (32, 64, 5), (64, 64, 5)):
        layers += [nn.Conv1d(before, after, width, padding=width // 2), nn.BatchNorm1d(after)]
        layers += [nn.ReLU(), nn.MaxPool1d(2)]
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool1d(1), nn.Flatten())
    model.add_module("head", nn.Linear(64, classes))
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


def measured(
    name: str, network: Network, samples: Samples, truth: Tensor, *, tokens: bool = False
) -> dict[str, Any]:
    """How many samples of a group are found together with another of it, and how many of others
    are taken for near-duplicates."""
    likeness, stretches = Likeness(), Stretches(tokens=tokens)
    _, _, layers = network.looked_into(samples, layers_of(network), 256)
    likeness.add(layers, samples.labels)
    for some in samples.inputs.split(512):  # type: ignore[no-untyped-call]  # torch
        stretches.add(some)
    alike, shared = likeness.found().numbers, stretches.found()
    numbers = united(alike, shared)
    grouped = truth.bincount(minlength=len(truth))[truth] > 1
    return {
        "samples": name,
        "in groups": int(grouped.sum()),
        "of these found": int((grouped & together(numbers, truth)).sum()),
        "found in layers": int((grouped & together(alike, truth)).sum()),
        "found by stretches": int((grouped & together(shared, truth)).sum()),
        "alone": int((~grouped).sum()),
        "of these taken for near-duplicates": int((~grouped & (numbers >= 0)).sum()),
        "taken so by stretches": int((~grouped & (shared >= 0)).sum()),
        "largest": int(numbers[numbers >= 0].bincount(minlength=1).max()),
    }


def together(numbers: Tensor, truth: Tensor) -> Tensor:
    """(N,) whether a sample is found together with another of its group."""
    pairs = torch.stack([numbers, truth])[:, numbers >= 0]
    _, own, sizes = pairs.unique(dim=1, return_inverse=True, return_counts=True)  # type: ignore[no-untyped-call]
    found = torch.zeros(len(truth), dtype=torch.bool)
    found[numbers >= 0] = sizes[own] > 1
    return found


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


def cost_of_stretches(count: int) -> dict[str, Any]:
    """Windows of three channels and 128 steps, half overlapping, 20 of a recording."""
    generator = torch.Generator().manual_seed(0)
    stretches, started, making = Stretches(), perf_counter(), 0.0
    for _ in range(count // 10_000):
        making -= perf_counter()
        whole = torch.randn(500, 3, 128 + 19 * 64, generator=generator).cumsum(2)
        cut = whole.unfold(2, 128, 64).transpose(1, 2).flatten(0, 1).contiguous()
        making += perf_counter()
        stretches.add(cut)
    searching = perf_counter()
    found = stretches.found()
    return {
        "samples": f"stretches of {count:,}",
        "found": int((found >= 0).sum()),
        "seconds for fingerprints": round(searching - started - making, 1),
        "seconds": round(perf_counter() - searching, 1),
    }


if __name__ == "__main__":
    main()
