"""Trains, once, the originals and the retrained networks; cached ones are not trained again."""

import hashlib
from pathlib import Path
from time import process_time

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from benchmarks.quality import measure
from benchmarks.real.networks import Problem
from worker.unlearning.network import Network
from worker.unlearning.samples import Samples

RETRAINED = 2
"""Networks retrained for each request; they differ by their seeds."""

ORIGINAL_SEED, RETRAINED_SEED = 0, 100


def original(problem: Problem, cache: Path) -> Network:
    """The network trained on everything."""
    everything = torch.ones(len(problem.data.train), dtype=torch.bool)
    return trained(problem, everything, ORIGINAL_SEED, cache)[0]


def retrained(problem: Problem, name: str, cache: Path) -> list[tuple[Network, float]]:
    """Networks that never saw what a request names, and the processor seconds each took."""
    kept = ~problem.requests[name].forgotten
    return [trained(problem, kept, RETRAINED_SEED + n, cache) for n in range(RETRAINED)]


def trained(problem: Problem, mask: Tensor, seed: int, cache: Path) -> tuple[Network, float]:
    """A network trained on the samples of a mask (N,), and the processor seconds it took."""
    key = hashlib.sha256(f"{problem.digest} {seed} ".encode() + mask.numpy().tobytes())
    path = cache / "networks" / f"{problem.name}-{key.hexdigest()[:20]}.safetensors"
    if not path.exists():
        begun = process_time()
        model = train(problem, problem.data.train.select(mask), seed)
        told = {"seconds": str(process_time() - begun)}
        measure.write(path, lambda partial: save_file(model.state_dict(), partial, told))
    model = initial(problem, seed).eval()
    model.load_state_dict(load_file(path))
    with safe_open(path, "pt") as stored:
        seconds = float(stored.metadata()["seconds"])
    return Network(model, head=problem.head, prepare=problem.prepare), seconds


def train(problem: Problem, samples: Samples, seed: int) -> nn.Module:
    """A network trained on these samples from what training begins with."""
    recipe = problem.recipe
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        model = initial(problem, seed).train()
        torch.manual_seed(seed)
        optimizer = torch.optim.AdamW(
            model.parameters(), recipe.lr, weight_decay=recipe.weight_decay
        )
        steps = recipe.epochs * -(-len(samples) // recipe.batch_size)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, recipe.lr, total_steps=steps, pct_start=0.2
        )
        for _ in range(recipe.epochs):
            for inputs, labels in samples.batches(recipe.batch_size, generator):
                optimizer.zero_grad()
                loss = F.cross_entropy(model(problem.prepare(inputs)), labels)
                loss.backward()  # type: ignore[no-untyped-call]  # torch
                optimizer.step()
                schedule.step()
    return model.eval()


def initial(problem: Problem, seed: int) -> nn.Module:
    """What training with this seed begins with."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return problem.build()
