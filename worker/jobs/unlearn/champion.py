"""The version that a job starts from: its network, its code, and how far it has drifted."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from domain import drift
from domain.drift import Drift
from domain.errors import JobError
from domain.preprocessing import kind_of
from domain.tables import Dataset, Model, ModelVersion
from worker.data import decode
from worker.engine.workbench import Workbench
from worker.jobs.unlearn.inputs import Order
from worker.networks import architectures, functions, recipes, weights
from worker.unlearning.network import Network


def load_champion(bench: Workbench, order: Order) -> Network:
    """The champion's network, on the worker's device."""
    return load_version(bench, order.model, order.dataset, order.champion)


def load_version(
    bench: Workbench, model: Model, dataset: Dataset, version: ModelVersion
) -> Network:
    """The network of a version, on the worker's device."""
    module = architectures.build(model.architecture, bench.settings.factories)
    weights.load(module, bench.store.path(version.weights_sha256))
    return Network(
        module.to(bench.device).eval(),
        head=model.head,
        prepare=decode.preparer(model.preprocessing, kind_of(dataset.definition)),
        pool=architectures.pooling(module, model.head),
    )


def users_code(bench: Workbench, model: Model) -> dict[str, str]:
    """Digests of the source files of the model's factory and recipe, by name.

    For example `factory nets.cnn:build` maps to `sha256.` and the digest. A recipe that is no
    longer allowed is left out: no job calls it.
    """
    found: dict[str, Callable[..., Any]] = {}
    if model.architecture["kind"] == "python":
        name = model.architecture["factory"]
        found[f"factory {name}"] = architectures.load_factory(name, bench.settings.factories)
    if model.recipe is not None:
        with suppress(JobError):
            recipe = recipes.load(model.recipe, bench.settings.recipes)
            found[f"recipe {model.recipe}"] = recipe
    return {
        name: f"sha256.{digest}"
        for name, function in found.items()
        if (digest := functions.source_sha256(function)) is not None
    }


def drift_of(order: Order) -> Drift:
    """How far approximate jobs have moved the champion so far."""
    return drift.of_version(order.champion.number, order.champion.figures)
