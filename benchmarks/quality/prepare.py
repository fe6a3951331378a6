"""Train, once, every model that the benchmark compares: originals, oracles, reference models.

Cached models are not trained again.
"""

import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.cifar_models import (
    Build,
    Data,
    Recipe,
    cnn,
    prepare_data,
    resnet18,
    trained_model,
)
from benchmarks.cifar_models import prepare as prepared
from benchmarks.quality.scenarios import Scenario, plant_canaries, scenarios
from worker.unlearning.network import Network

REFERENCES = 8
SEEDS = (0, 1, 2)
DEV_SEED = 10
ORACLE_SEED, REFERENCE_SEED = 100, 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """The size of the benchmark, and the device it runs on."""

    name: str
    train_samples: int
    holdout_samples: int
    build: Build
    recipe: Recipe
    """The recipe of every training; each has a seed of its own."""

    device: str
    """`cpu` or `cuda`."""


SIZES = {
    "cpu": Size(
        name="cpu",
        train_samples=10_000,
        holdout_samples=5_000,
        build=cnn,
        recipe=Recipe(),
        device="cpu",
    ),
    "gpu": Size(
        name="gpu",
        train_samples=50_000,
        holdout_samples=5_000,
        build=resnet18,
        recipe=Recipe(epochs=20),
        device="cuda",
    ),
}


@dataclass(frozen=True, slots=True)
class Place:
    """The location of the images, the cache, and the amount of work."""

    images: Path
    cache: Path
    size: Size


@dataclass(frozen=True, slots=True)
class Bench:
    """The data with its canaries, and the cached models trained on parts of it."""

    data: Data
    canaries: Tensor
    cache: Path
    size: Size

    @classmethod
    def open(cls, place: Place) -> "Bench":
        """One training record in a hundred is a canary."""
        data = prepare_data(
            place.images,
            place.cache,
            train_samples=place.size.train_samples,
            holdout_samples=place.size.holdout_samples,
        )
        data, canaries = plant_canaries(data, len(data.train) // 100)
        return cls(data, canaries, place.cache, place.size)

    def original(self, seed: int) -> Network:
        """The model trained on everything."""
        return self.trained(torch.ones_like(self.canaries), seed)

    def oracle(self, scenario: Scenario, number: int) -> Network:
        """The model retrained without the forget set."""
        return self.trained(~scenario.retrained_without, ORACLE_SEED + number)

    def reference(self, number: int) -> Network:
        """The reference model trained on the half `self.seen()[number]`."""
        return self.trained(self.seen()[number], REFERENCE_SEED + number)

    def seen(self) -> Tensor:
        """(K, N) bool: which training samples each reference model saw: half of them."""
        generator = torch.Generator().manual_seed(REFERENCE_SEED)
        count = len(self.canaries)
        halves = torch.zeros(REFERENCES // 2, count, dtype=torch.bool)
        for half in halves:
            half[torch.randperm(count, generator=generator)[: count // 2]] = True
        return torch.cat([halves, ~halves])

    def unseen_predictions(self) -> Tensor:
        """(N, C) mean probabilities of the reference models that did not see the sample."""
        return masked_mean(self.reference_logits("train").softmax(2), ~self.seen())

    def reference_logits(self, split: str) -> Tensor:
        """(K, N, C) outputs of the reference models on a split, cached."""
        path = self.cache / f"references-{split}.pt"
        if not path.exists():
            samples = getattr(self.data, split)
            rows = [self.reference(n).outputs(samples, 500)[1] for n in range(REFERENCES)]
            torch.save(torch.stack(rows), path)
        logits: Tensor = torch.load(path)
        return logits

    def scenarios(self) -> dict[str, Scenario]:
        def confidence() -> Tensor:
            labels = self.data.train.labels[:, None]
            return self.unseen_predictions().gather(1, labels).squeeze(1)

        return scenarios(self.data.train, self.canaries, confidence)

    def trained(self, mask: Tensor, seed: int) -> Network:
        model, _ = self.train(mask, seed)
        return Network(model, head="head", prepare=prepared)

    def train(self, mask: Tensor, seed: int) -> tuple[nn.Module, float]:
        """A model trained on some of the samples, cached or trained now, and its training time."""
        size = self.size
        recipe = replace(size.recipe, seed=seed)
        return trained_model(
            self.data.train.select(mask), recipe, self.cache, size.build, size.device
        )


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over the first dimension of values (K, N, C), where mask (K, N) is true."""
    weights = mask.double()[..., None]
    return ((values * weights).sum(0) / weights.sum(0)).float()


def wanted(bench: Bench) -> Iterator[tuple[Tensor, int]]:
    """The models to train after the reference models, most urgent first."""
    everything = torch.ones_like(bench.canaries)
    yield everything, DEV_SEED
    for scenario in bench.scenarios().values():
        for number in range(scenario.oracles):
            yield ~scenario.retrained_without, ORACLE_SEED + number
        if scenario.name == "dev class":
            yield from ((everything, seed) for seed in SEEDS)


_bench: Bench


def _start(place: Place) -> None:
    global _bench
    torch.set_num_threads(1)
    os.nice(5)
    _bench = Bench.open(place)


def _train(mask: Tensor, seed: int) -> str:
    _, seconds = _bench.train(mask, seed)
    return f"{int(mask.sum()):>6} samples, seed {seed}: {seconds:.0f} s"


def prepare(place: Place, workers: int) -> None:
    """Train what is not cached yet, in processes of one thread each."""
    bench = Bench.open(place)
    spawned = get_context("spawn")
    with ProcessPoolExecutor(workers, spawned, initializer=_start, initargs=(place,)) as pool:
        seen = bench.seen()
        _train_all(pool, [(seen[n], REFERENCE_SEED + n) for n in range(REFERENCES)])
        unique = {(mask.numpy().tobytes(), seed): (mask, seed) for mask, seed in wanted(bench)}
        _train_all(pool, list(unique.values()))


def _train_all(pool: ProcessPoolExecutor, runs: list[tuple[Tensor, int]]) -> None:
    for done in as_completed([pool.submit(_train, *run) for run in runs]):
        print(done.result(), flush=True)
