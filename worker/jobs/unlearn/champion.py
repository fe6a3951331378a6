"""The version that a job starts from: its network, and how far it is from a retrained one."""

from domain import drift
from domain.drift import Drift
from worker.data import decode
from worker.engine.workbench import Workbench
from worker.jobs.unlearn.inputs import Order
from worker.networks import architectures
from worker.unlearning.network import Network


def load_champion(bench: Workbench, order: Order) -> Network:
    """The version to serve, on the worker's device."""
    module = architectures.build(order.model.architecture, bench.settings.factories)
    architectures.load_weights(module, bench.store.path(order.champion.weights_sha256))
    return Network(
        module.to(bench.device).eval(),
        head=order.model.head,
        prepare=decode.preparer(order.model.preprocessing),
        pool=architectures.pooling(module, order.model.head),
    )


def drift_of(order: Order) -> Drift:
    """How far approximate jobs have moved the champion so far."""
    return drift.of_version(order.champion.number, order.champion.figures)
