"""Train, once, the networks that the benchmark compares; cached ones are not trained again.

Shapes: N samples of a data set.
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmarks.persons.data import SETS, Grouped
from worker.unlearning.network import Network
from worker.unlearning.reference_models import halves
from worker.unlearning.samples import Samples

ORACLE_SEED, REFERENCE_SEED = 100, 200
BATCH, WEIGHT_DECAY = 64, 5e-4


@dataclass(frozen=True)
class Fold:
    """One data set, its groups divided in one way, and the networks trained on them."""

    name: str
    number: int
    references: int
    cache: Path

    @cached_property
    def data(self) -> Grouped:
        return SETS[self.name]()

    @cached_property
    def identity(self) -> bytes:
        """What a cached network rests on: the samples, and how it is built and trained."""
        samples = self.data.samples
        found = hashlib.sha256(samples.inputs.numpy().tobytes() + samples.labels.numpy().tobytes())
        recipe = (self.data.build(), self.data.epochs, self.data.lr, BATCH, WEIGHT_DECAY)
        found.update(repr(recipe).encode())
        return found.digest()

    @cached_property
    def parts(self) -> list[Tensor]:
        """The groups for training, calibration, the audit, and the test."""
        count = int(self.data.groups.max()) + 1
        order = torch.randperm(count, generator=torch.Generator().manual_seed(self.number))
        return list(torch.split(order, list(self.data.shares)))

    @cached_property
    def requests(self) -> dict[str, Tensor]:
        """(N,) bool, the samples that each request names: those of people one by one, and of
        several where there are many people; half of what there is of some; and both."""
        train = self.parts[0]
        people = {f"person {n}": person[None] for n, person in enumerate(train[:6], 1)}
        whole, halves = people, people
        mixed = train[:1], train[2:3]
        if len(train) > 200:
            fives, fifties = torch.split(train[6:21], 5), torch.split(train[21:121], 50)
            whole = people | {f"5 people, {n}": each for n, each in enumerate(fives, 1)}
            whole |= {f"50 people, {n}": each for n, each in enumerate(fifties, 1)}
            halves = {name: whole[name] for name in ("5 people, 1", "5 people, 2", "50 people, 1")}
            mixed = fifties[0], fives[0]
        return (
            {name: self.of(each) for name, each in whole.items()}
            | {f"half of {name}": self.half_of(each) for name, each in halves.items()}
            | {"some, and half of others": self.of(mixed[0]) | self.half_of(mixed[1])}
        )

    def half_of(self, groups: Tensor) -> Tensor:
        """(N,) bool: a random half of the samples of each of these groups."""
        generator = torch.Generator().manual_seed(self.number)
        order = torch.randperm(len(self.data.groups), generator=generator)
        chosen = torch.zeros(len(order), dtype=torch.bool)
        for group in groups.tolist():
            mine = order[self.data.groups[order] == group]
            chosen[mine[: len(mine) // 2]] = True
        return chosen

    def of(self, groups: Tensor) -> Tensor:
        """(N,) bool: the samples of these groups."""
        return torch.isin(self.data.groups, groups)

    @property
    def original(self) -> Network:
        return self.trained(self.of(self.parts[0]), self.number)

    def oracle(self, forgotten: Tensor, number: int) -> Network:
        """A network retrained without these samples (N,)."""
        kept = self.of(self.parts[0]) & ~forgotten
        return self.trained(kept, ORACLE_SEED + number)

    @cached_property
    def seen(self) -> Tensor:
        """(K, N) bool: which reference model has learned from which sample; whole groups."""
        train = self.parts[0]
        generator = torch.Generator().manual_seed(REFERENCE_SEED + self.number)
        chosen = halves(len(train), self.references, generator)
        return torch.stack([self.of(train[row]) for row in chosen])

    @cached_property
    def reference_logits(self) -> Tensor:
        """(K, N, C) answers of the reference models to every sample."""
        networks = [self.trained(seen, REFERENCE_SEED + n) for n, seen in enumerate(self.seen)]
        return torch.stack([each.outputs(self.data.samples, 500)[1] for each in networks])

    def trained(self, mask: Tensor, seed: int) -> Network:
        """The network trained on the samples of the mask (N,), from the cache if it is there."""
        key = hashlib.sha256(self.identity + mask.numpy().tobytes() + str(seed).encode())
        path = self.cache / f"{self.name}-{key.hexdigest()[:20]}.safetensors"
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = self.data.build()
            if path.exists():
                model.load_state_dict(load_file(path))
            else:
                _train(model, self.data.samples.select(mask), self.data, seed)
                path.parent.mkdir(parents=True, exist_ok=True)
                partial = path.with_suffix(".partial")
                save_file(model.state_dict(), partial)
                partial.rename(path)
        head = list(dict(model.named_children()))[-1]
        return Network(model.eval(), head=head, prepare=_as_it_is)


def _as_it_is(inputs: Tensor) -> Tensor:
    return inputs


def _train(model: torch.nn.Module, samples: Samples, data: Grouped, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.SGD(
        model.parameters(), data.lr, momentum=0.9, weight_decay=WEIGHT_DECAY
    )
    steps = data.epochs * -(-len(samples) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, data.lr, total_steps=steps)
    for _ in range(data.epochs):
        for inputs, labels in samples.batches(BATCH, generator):
            optimizer.zero_grad()
            F.cross_entropy(model(inputs), labels).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
