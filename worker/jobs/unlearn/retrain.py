"""Exact mode: a fresh network, trained by the model's own recipe on all samples that stay."""

from time import monotonic

import torch
from torch import nn

from domain.errors import JobError
from domain.training_time import Measured, TrainingTime
from worker.engine import lease
from worker.engine.workbench import Workbench
from worker.jobs import timing
from worker.jobs.unlearn.inputs import BATCH, Order, read_remaining
from worker.networks import recipes
from worker.unlearning.alignment import Moments
from worker.unlearning.evaluation import Outputs
from worker.unlearning.network import Network


def retrain(
    bench: Workbench, order: Order, champion: Network, *, seed: int
) -> tuple[Network, Moments]:
    """Train the model without the samples to forget and those forgotten before. What that takes is
    stored with the model, whatever becomes of the job.

    Args:
        champion: tells where the head is; none of its weights are used.
        seed: of the initial weights, and for the recipe.

    Returns:
        The network, and the moments of the features of all samples it was trained on.

    Raises:
        JobError: the recipe is not allowed or fails, or does not return such a network.
        UnlearningError: the trained network's answers are not finite.
        LeaseLost: another worker has the job.
    """
    started = monotonic()
    recipe = str(order.model.recipe)
    samples = read_remaining(bench, order)
    trained = recipes.fresh(
        order.model.architecture,
        bench.settings.factories,
        recipe,
        bench.settings.recipes,
        recipes.TrainingData(samples, champion.prepare),
        device=bench.device,
        seed=seed,
    )
    if _shapes(trained) != _shapes(champion.model):
        raise JobError(
            f"The recipe {recipe!r} returned another network than it was given; make it return the "
            "model itself, trained."
        )
    network = champion.around(trained)
    moments = Moments.of(Outputs.of(network, samples, BATCH).features)
    took = TrainingTime(Measured.RETRAINING, monotonic() - started, len(samples))
    for attempt in bench.transaction():
        with attempt as session:
            lease.hold(session, bench.claim)
            timing.note(session, bench, order.model, took)
    return network, moments


def _shapes(module: nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in module.state_dict().items()}
