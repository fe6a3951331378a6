"""The job that makes a model forget: load, evaluate, try until the audit passes, store.

The shell around `worker.unlearning`: `inputs` reads, `rounds` tries, `record` stores the result in
one transaction.
"""

from dataclasses import replace
from typing import Any

from torch import Tensor

from domain.states import Mode
from worker.data import reference_tables, version_statistics
from worker.data.reference_tables import Table
from worker.engine.workbench import Workbench
from worker.jobs.unlearn import choice, fine_tuned, pooled, record, resume, rounds
from worker.jobs.unlearn.champion import load_champion
from worker.jobs.unlearn.inputs import Inputs, Order, read_inputs, read_order
from worker.jobs.unlearn.rounds import Basis
from worker.jobs.unlearn.unchanged import answered_by, require_unchanged
from worker.unlearning.evaluation import evaluate, retain_moments
from worker.unlearning.targets import among_alike
from worker.unlearning.unseen_answers import ease_told


def unlearn_model(bench: Workbench) -> None:
    """Make the champion forget the samples of the job's requests, as a new version.

    Raises:
        JobError: a file, the data or the model is not what was registered, or the model needs
            retraining and has no recipe.
        UnlearningError: the method cannot do the job.
        LeaseLost: another worker has the job.
    """
    for attempt in bench.transaction():
        with attempt as session:
            order = read_order(session, bench.claim.job_id)
    if not order.forget:
        record.without_training(bench, order)
        return
    bench.report("loading the model and its data", 0.02)
    network = load_champion(bench, order)
    known = version_statistics.read(bench.store, order.champion.statistics_sha256)
    order, chosen = choice.made(bench, order, remaining=int(known.class_counts.sum()))
    inputs = read_inputs(bench, order, known.class_counts)
    compared = require_unchanged(
        bench, order.model, order.dataset, network, inputs.source, inputs.kept
    )
    bench.report("evaluating the champion", 0.05)
    kept = inputs.kept_of(answered_by(bench, order.model, order.champion))
    observed = inputs.shown_to(network, kept)
    if order.champion.mode is Mode.EXACT:  # measured on all samples it was trained on
        moments = known.moments.without(observed.forget.features)
    else:  # estimated from an earlier reservoir: the present one gives a better estimate
        moments = retain_moments(observed.retain, inputs.class_counts)
    # The seed follows from the job, so on the CPU a second attempt gives the same result as the
    # first.
    seed = bench.claim.job_id.int % 2**31
    before = evaluate(
        observed,
        class_counts=inputs.class_counts,
        moments=moments,
        groups=inputs.groups,
        seed=seed,
    )
    points = resume.find(bench, order)
    record.start(bench, order, chosen, before, points, compared=compared)
    basis = Basis(
        order=order,
        inputs=inputs,
        plan=chosen,
        champion=network,
        moments=moments,
        before=observed,
        **_known(bench, order, inputs),
        seed=seed,
        points=points,
    )
    made = rounds.run(bench, basis)
    after = evaluate(
        made.observed,
        class_counts=inputs.class_counts,
        moments=made.moments,
        groups=inputs.groups,
        seed=seed,
    )
    after = replace(after, fine_tuned=fine_tuned.measure(bench, basis, made))
    pool = pooled.measure(bench, basis, made)
    bench.report("storing the new version", 0.99)
    record.new_version(bench, order, inputs, made, before, after, pool)


def _known(bench: Workbench, order: Order, inputs: Inputs) -> dict[str, Any]:
    """What the reference tables hold about the samples, in the form `Basis` takes."""
    for attempt in bench.transaction():
        with attempt as session:
            forget, unseen, calibration = (
                reference_tables.read(session, order.model.id, ids)
                for ids in (order.forget_ids, inputs.audit_ids, inputs.calibration_ids)
            )
    if forget is None:
        return {"predictions": None, "ease": None, "references": None}
    scores = None if unseen is None else reference_tables.scores(forget, unseen)
    return {
        "predictions": forget.predictions,
        "ease": _ease(inputs, forget, calibration),
        "references": scores,
    }


def _ease(inputs: Inputs, forget: Table, calibration: Table | None) -> Tensor | None:
    """See `Basis.ease`."""
    if calibration is None:
        return None
    if inputs.groups is None:
        return among_alike(
            forget.out_mean, inputs.forget.labels, calibration.out_mean, inputs.calibration.labels
        ).float()
    if forget.scores is None or forget.seen is None or calibration.scores is None:
        return None
    return ease_told(
        forget.scores,
        forget.seen,
        inputs.forget.labels,
        calibration.scores,
        inputs.calibration.labels,
    )
