"""Measures what a retraining of a model takes: a few steps at registration, and whatever real run
of its recipe there is later.

The recipe itself is not tried at registration: nobody could say how long it takes, what it writes
and where, or that it ends. What a step costs follows from the network; how many the recipe takes it
may say, as the attribute `passes` of its function, and else is assumed. Shapes: C classes.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic, thread_time

import pyarrow as pa
import torch
import torch.nn.functional as F
from sqlalchemy.orm import Session
from torch import Tensor

from domain import functions as names
from domain import training_time
from domain.errors import JobError
from domain.states import Split
from domain.tables import Dataset, Model
from domain.training_time import Measured, TrainingTime
from worker import budgets
from worker.data import reservoir
from worker.engine import environment
from worker.engine.workbench import Workbench
from worker.jobs.unlearn import job_time
from worker.jobs.unlearn.job_time import JobTime
from worker.networks import functions, recipes
from worker.unlearning.evaluation import Outputs
from worker.unlearning.network import Network
from worker.unlearning.samples import Samples
from worker.unlearning.sgd import SGD

SIZES = (8, 32, 128)
"""Sizes of batches that are tried, the larger ones only where there is time."""

TRIES = 20
"""The most further steps of each size; the fastest counts."""

LIMIT_S = 1.0
"""No step is begun after this, and no larger batch that would take longer."""


@dataclass(frozen=True, slots=True)
class Timed:
    """What registration can say of the times that are to come."""

    device: str
    retraining: TrainingTime
    job: JobTime
    """Of a job that changes the model."""

    evaluation: float
    """Seconds of reading and looking at all samples that a job is judged by."""


def at_registration(
    bench: Workbench,
    model: Model,
    dataset: Dataset,
    network: Network,
    kept: pa.Table,
    class_counts: Tensor,
) -> Timed | None:
    """What a retraining and a job would take on this device; None where there is nothing to train
    or to time. Never fails because of the network or the recipe.

    Args:
        kept: the reservoir.
        class_counts: (C,) training samples of each class.
    """
    if model.recipe is None or names.is_head(model.recipe):
        return None
    retain = reservoir.of_split(kept, Split.TRAIN)
    rows = retain.slice(0, max(SIZES))
    try:
        with functions.users_code("The network"):
            clock = _clock(network)
            with _one_thread(network):
                started = clock()
                samples = reservoir.decoded(rows, model.preprocessing, dataset.definition)
                Outputs.of(network, samples, len(samples))
                look = (clock() - started) / len(samples)
            training = per_sample(network, samples)
    except JobError:  # it does not learn in this way; its recipe may know how
        return None
    except Exception as error:
        if not budgets.is_out_of_memory(error):
            raise
        return None
    count = int(class_counts.sum())
    passes, assumed = _passes(model.recipe, bench.settings.recipes, count)
    seconds, evaluation = count * (look + passes * training), look * len(kept)
    return Timed(
        environment.name_of(bench.device),
        TrainingTime(Measured.STEPS, seconds, count, passes, assumed),
        job_time.foreseen(evaluation=evaluation, training=training, reservoir=len(retain)),
        evaluation,
    )


def per_sample(network: Network, samples: Samples) -> float:
    """Seconds of forward, backward and update for each sample of a batch, in training mode. Of the
    network a copy is used, whose weights stay."""
    model = network.copy().model.requires_grad_(True).train()
    clock = _clock(network)
    optimizer = SGD(model.parameters(), lr=0.0, momentum=0.9)

    def step(size: int) -> float:
        started = clock()
        logits = model(network.prepared(samples.inputs[:size]))
        loss = F.cross_entropy(logits, samples.labels[:size].to(logits.device))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch
        optimizer.step()
        loss.item()  # waits for the device
        return clock() - started

    def fastest() -> float:
        began, found = monotonic(), math.inf
        for size in sorted({min(size, len(samples)) for size in SIZES}):
            took = step(size)
            for _ in range(TRIES):
                if monotonic() - began < LIMIT_S:
                    took = min(took, step(size))
            found = min(found, took / size)
            if monotonic() - began + 8 * took > LIMIT_S:
                break
        return found

    devices = [network.device] if network.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        step(min(SIZES))  # the first one sets things up
        if network.device.type != "cpu":
            return fastest()
        with _one_thread(network):
            found = fastest()
        return min(found, fastest())


@contextmanager
def _one_thread(network: Network) -> Iterator[None]:
    """Compute with one thread where the network is on a CPU: several wait for each other, if others
    want the processor too."""
    threads = torch.get_num_threads()
    if network.device.type == "cpu":
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _clock(network: Network) -> Callable[[], float]:
    """What tells the time that steps take. On a CPU not that in which others had it: a few steps
    beside a busy neighbour were seen to take a hundred times as long as those of a retraining."""
    return thread_time if network.device.type == "cpu" else monotonic


def _passes(recipe: str, allowed: Sequence[str], count: int) -> tuple[float, bool]:
    """How many passes over the data the recipe makes, and whether that is only assumed."""
    try:
        function = recipes.load(recipe, allowed)
    except JobError:  # not here, at least; the job that needs it will say so
        return recipes.EPOCHS, True
    if function is recipes.train:
        return recipes.epochs(count), False
    said = getattr(function, "passes", None)
    if isinstance(said, int | float) and not isinstance(said, bool) and 0 < said < math.inf:
        return float(said), False
    return recipes.EPOCHS, True


def keep(model: Model, found: Timed | None) -> None:
    """Store with the model what registration found."""
    if found is None:
        return
    timings = training_time.noted(model.timings, found.device, found.retraining)
    job = {
        "constant": found.job.constant,
        "per_sample": found.job.per_sample,
        "evaluation": found.evaluation,
    }
    model.timings = {**timings, found.device: {**timings[found.device], "job": job}}


def note(session: Session, bench: Workbench, model: Model, found: TrainingTime) -> None:
    """Store with the model what runs of its recipe took."""
    row = session.get_one(Model, model.id, with_for_update=True)
    row.timings = training_time.noted(row.timings, environment.name_of(bench.device), found)
