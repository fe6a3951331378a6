"""Chooses how a job, or the one that an estimate is about, makes its version."""

from collections.abc import Callable

from domain import functions
from domain.states import Mode
from worker.engine.workbench import Workbench
from worker.jobs.unlearn import outlook, plan
from worker.jobs.unlearn.champion import drift_of
from worker.jobs.unlearn.cheaper import Outlook
from worker.jobs.unlearn.inputs import Order
from worker.jobs.unlearn.plan import Plan


def made(bench: Workbench, order: Order, *, remaining: int) -> tuple[Order, Plan]:
    """The plan of a job, and its order: where the job retrains the model, all that waits and may be
    answered with the rest is in it.

    Args:
        remaining: number of training samples that the champion has not forgotten.

    Raises:
        JobError: only a retraining would do, and the model cannot be retrained.
        LeaseLost: another worker has the job.
    """
    chosen = _chosen(bench, order, outlook.of_job, remaining)
    if chosen.mode is Mode.EXACT and not functions.is_head(order.model.recipe):
        order = outlook.with_all_that_waits(bench, order)
    return order, chosen


def foreseen(bench: Workbench, order: Order, *, remaining: int) -> Plan:
    """The plan of the job that would serve what an estimate names, with what would share that job.

    Raises:
        JobError: as in `made`.
    """
    return _chosen(bench, order, outlook.of_question, remaining)


def _chosen(bench: Workbench, order: Order, look: Callable[..., Outlook], remaining: int) -> Plan:
    for attempt in bench.transaction():
        with attempt as session:
            seen = look(session, bench, order, remaining=remaining)
    return plan.plan(
        order.policy,
        drift_of(order),
        exact_asked=order.exact_asked,
        recipe=order.model.recipe,
        forget=len(order.forget),
        remaining=remaining,
        outdated=order.model.state < order.dataset.state,
        outlook=seen,
    )
