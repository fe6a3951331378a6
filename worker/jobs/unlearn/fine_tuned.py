"""After the rounds: is what was forgotten still gone once a copy of the new version is trained?"""

import structlog
import torch

from domain.errors import Stopped
from worker.engine.workbench import Workbench
from worker.jobs.unlearn.inputs import BATCH, Inputs
from worker.jobs.unlearn.rounds import Basis, JudgedVersion
from worker.unlearning.config import default_config
from worker.unlearning.errors import NotFinite
from worker.unlearning.evaluation import FineTuned, Outputs, membership_auc
from worker.unlearning.fine_tuning import fine_tuned

log = structlog.get_logger()


def measure(bench: Workbench, basis: Basis, made: JudgedVersion) -> FineTuned | None:
    """Membership before and after a copy was trained further; None where the policy wants none.

    The copy is thrown away, and no verdict hangs on it: a copy that cannot be trained is told as
    such, and does not stop the job.

    Raises:
        Stopped: the worker is to stop.
    """
    steps, inputs = basis.order.policy.fine_tuned_steps, basis.inputs
    if steps == 0:
        return None
    bench.report("fine-tuning a copy of the new version", 0.97)
    config = default_config(
        removing=basis.order.removing,
        forget_count=len(inputs.forget),
        reservoir_count=len(inputs.retain),
        seed=basis.seed,
    )

    def stop_if_asked() -> None:
        if bench.stop.is_set():
            raise Stopped

    after = None
    try:
        copy = fine_tuned(
            made.network,
            inputs.retain,
            steps=steps,
            lr=config.recover_lr,
            batch_size=config.batch_size,
            seed=basis.seed,
            on_step=stop_if_asked,
        )
        after = _auc(
            inputs, Outputs.of(copy, inputs.forget, BATCH), Outputs.of(copy, inputs.audit, BATCH)
        )
    except (NotFinite, torch.OutOfMemoryError) as error:
        log.warning("fine_tuning.failed", steps=steps, kind=type(error).__name__)
    return FineTuned(
        steps=steps,
        samples=min(steps * config.batch_size, len(inputs.retain)),
        membership_auc_before=_auc(inputs, made.observed.forget, made.observed.holdout),
        membership_auc_after=after,
    )


def _auc(inputs: Inputs, forget: Outputs, holdout: Outputs) -> float | None:
    """Of the samples of whose groups nothing stays: the others' groups come back with what stays.
    None where there are none."""
    if inputs.groups is not None:
        forget = forget.select(inputs.groups.whole)
    return membership_auc(forget, holdout) if len(forget.labels) else None
