"""The job that makes a model forget: load, evaluate, try until the audit agrees, store.

The shell around `worker.unlearning`: `inputs` reads, `rounds` tries, and what came of it is
stored here, in one transaction.
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, String, delete, func, insert, literal, select, update
from sqlalchemy.orm import Session

from domain import drift, forgetting, tombstones, trail
from domain.drift import Drift
from domain.states import Mode, RequestStatus, Verdict, VersionStatus
from domain.tables import (
    DeletionTarget,
    Evaluation,
    Job,
    ModelVersion,
    RequestSample,
    Round,
    Tombstone,
    VerdictTest,
)
from worker.data import decode, reference_tables, reservoir, version_statistics
from worker.engine import environment, lease
from worker.engine.retrying import patiently
from worker.engine.workbench import Workbench
from worker.jobs import purge
from worker.jobs.unlearn import plan, resume, rounds
from worker.jobs.unlearn.inputs import Inputs, Order, read_inputs, read_order
from worker.jobs.unlearn.plan import Plan
from worker.jobs.unlearn.resume import Point
from worker.jobs.unlearn.rounds import Case, Outcome
from worker.networks import architectures
from worker.unlearning.evaluation import Evaluation as Measured
from worker.unlearning.evaluation import evaluate, retain_moments
from worker.unlearning.network import Network

EVALUATION_COLUMNS = (
    "forget_accuracy", "retain_accuracy", "holdout_accuracy",
    "da_forget", "da_holdout", "da_gap", "da_gap_low", "da_gap_high",
)  # fmt: skip


def unlearn_model(bench: Workbench) -> None:
    """Make the champion forget the samples of the job's requests, as a new version.

    Raises:
        JobError: a file, the data or the model is not what was registered, or the model would have
            to be retrained and cannot be.
        UnlearningError: the method cannot do it.
        LeaseLost: the job is somebody else's by now.
    """
    for attempt in patiently():
        with attempt, bench.sessions.begin() as session:
            order = read_order(session, bench.claim.job_id)
    if not order.forget:
        _record_without_training(bench, order)
        return
    bench.report("loading the model and its data", 0.02)
    network = load_champion(bench, order)
    known = version_statistics.read(bench.store, order.champion.statistics_sha256)
    chosen = plan.plan(
        order.policy,
        _drift(order),
        exact_asked=order.exact_asked,
        recipe=order.model.recipe,
        forget=len(order.forget),
        remaining=int(known.class_counts.sum()),
    )
    inputs = read_inputs(bench, order, known.class_counts)
    bench.report("evaluating the champion", 0.05)
    observed = inputs.shown_to(network)
    if order.champion.mode is Mode.EXACT:  # measured over all samples it was trained on
        moments = known.moments.without(observed.forget.features)
    else:  # estimated from the reservoir, as it was: better estimated from it as it is
        moments = retain_moments(observed.retain, inputs.class_counts)
    # The seed follows from the job, so that on the CPU a second attempt gives what the first would
    # have given.
    seed = bench.claim.job_id.int % 2**31
    before = evaluate(observed, class_counts=inputs.class_counts, moments=moments, seed=seed)
    points = resume.find(bench, order)
    _record_start(bench, order, chosen, before, points)
    outcome = rounds.run(
        bench,
        Case(
            order=order,
            inputs=inputs,
            plan=chosen,
            champion=network,
            moments=moments,
            before=observed,
            **_known(bench, order, inputs),
            seed=seed,
            points=points,
        ),
    )
    bench.report("storing the new version", 0.99)
    after = evaluate(
        outcome.observed, class_counts=inputs.class_counts, moments=outcome.moments, seed=seed
    )
    _record(bench, order, inputs, outcome, before, after)


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


def _known(bench: Workbench, order: Order, inputs: Inputs) -> dict[str, Any]:
    """What reference models left behind about the samples, as `Case` takes it."""
    for attempt in patiently():
        with attempt, bench.sessions.begin() as session:
            forget = reference_tables.read(session, order.model.id, order.forget_ids)
            unseen = reference_tables.read(session, order.model.id, inputs.audit_ids)
    if forget is None or unseen is None:
        return {"predictions": None, "references": None}
    scores = reference_tables.scores(forget, unseen)
    return {"predictions": forget.predictions, "references": scores}


def _drift(order: Order) -> Drift:
    return drift.of_version(order.champion.number, order.champion.figures)


def _record_start(
    bench: Workbench, order: Order, plan: Plan, before: Measured, points: Mapping[int, Point]
) -> None:
    """Store how the job runs, and how the champion stood; what an earlier attempt left goes, but
    for the cycles it need not do again."""
    for attempt in patiently():
        with attempt, bench.sessions.begin() as session:
            job = lease.hold(session, bench.claim)
            job.environment = environment.describe(bench.device)
            job.mode, job.mode_reason = plan.mode, plan.reason
            job.base_version_id = order.champion.id
            _drop_earlier(session, job.id)
            resume.begin(session, order, job.attempt, points)
            session.add(_evaluation(job.id, "before", before))


def _drop_earlier(session: Session, job_id: UUID) -> None:
    """Delete what an earlier attempt measured."""
    for table in (Evaluation, VerdictTest, Round):
        session.execute(delete(table).filter_by(job_id=job_id))


def _record(
    bench: Workbench,
    order: Order,
    inputs: Inputs,
    outcome: Outcome,
    before: Measured,
    after: Measured,
) -> None:
    """Write the files first, under their hashes; then everything else in one transaction.

    A version with the verdict `fail` becomes a candidate: a person decides whether it is served,
    and until then nothing counts as forgotten.
    """
    digests = _write_files(bench, inputs, outcome)
    failed = outcome.verdict is Verdict.FAIL
    for attempt in patiently():
        with attempt, bench.sessions.begin() as session:
            job = lease.hold(session, bench.claim)
            champion = session.get_one(ModelVersion, order.champion.id, with_for_update=True)
            if champion.status is not VersionStatus.CHAMPION:
                lease.release(session, job, why="the champion was replaced meanwhile")
                return
            job.mode, job.config, job.verdict = outcome.mode, outcome.config, outcome.verdict
            purge.keep_files(session, bench.store, digests.values())
            of_job = {"job_id": job.id, "number": outcome.number}
            session.execute(update(Round).filter_by(**of_job).values(kept=True))
            session.add(_evaluation(job.id, "after", after))
            if not failed:
                forgetting.supersede(session, champion, actor="worker")
            version = ModelVersion(
                model_id=order.model.id,
                number=_next_number(session, order.model.id),
                status=VersionStatus.CANDIDATE if failed else VersionStatus.CHAMPION,
                mode=outcome.mode,
                parent_id=champion.id,
                job_id=job.id,
                **digests,
            )
            version.figures = _figures(order, version, inputs, before, after)
            session.add(version)
            session.flush()
            trail.record(
                session, "worker", "version.created", version.id,
                model=str(order.model.id), number=version.number, job=str(job.id), **digests,
                parent_sha256=champion.weights_sha256, samples=len(order.forget),
                status=version.status, mode=version.mode,
            )  # fmt: skip
            if failed:
                lease.complete(session, job, requests=RequestStatus.NEEDS_REVIEW)
            else:
                _bury(session, order, job.id)
                lease.complete(session, job)


def _next_number(session: Session, model_id: UUID) -> int:
    """Candidates have numbers too, so that the champion's is not always the highest."""
    highest = select(func.max(ModelVersion.number)).filter_by(model_id=model_id)
    return session.scalars(highest).one() + 1


def _write_files(bench: Workbench, inputs: Inputs, outcome: Outcome) -> dict[str, str]:
    """Put weights, statistics and reservoir of the new version into the store; their digests."""
    known = version_statistics.describe(
        outcome.observed.holdout, outcome.moments, inputs.class_counts
    )
    return {
        "weights_sha256": bench.store.put(
            lambda path: architectures.save_weights(outcome.network.model, path)
        ),
        "statistics_sha256": version_statistics.write(bench.store, known),
        "reservoir_sha256": reservoir.write(bench.store, inputs.kept),
    }


def _figures(
    order: Order, version: ModelVersion, inputs: Inputs, before: Measured, after: Measured
) -> dict[str, Any]:
    """What is known of the new version, under the names that version 1 has."""
    kept = {
        "train": len(inputs.retain),
        "holdout": len(inputs.calibration) + len(inputs.audit),
        "test": len(inputs.test or ()),
    }
    if version.mode is Mode.EXACT:
        trained_on = int(inputs.class_counts.sum())
        moved = Drift(version.number, trained_on, forgotten=0, accuracy_change=0.0)
    else:
        change = _accuracy(after) - _accuracy(before)
        moved = _drift(order).further(forgotten=len(order.forget), accuracy_change=change)
    return {
        **order.champion.figures,
        "retain_accuracy": after.retain_accuracy,
        "holdout_accuracy": after.holdout_accuracy,
        "test_accuracy": after.test_accuracy,
        "reservoir": kept,
        "drift": moved.to_figures(),
    }


def _accuracy(measured: Measured) -> float:
    """On samples that are neither trained on nor to be forgotten."""
    test, holdout = measured.test_accuracy, measured.holdout_accuracy
    return (holdout if test is None else test) or 0.0


def _record_without_training(bench: Workbench, order: Order) -> None:
    """Nothing named is left for the model to forget: only what is kept for its jobs changes.

    So it is when other requests had all training samples forgotten meanwhile, and when hold-out
    or test samples alone are named. The champion stays, with a reservoir that lacks them.
    """
    kept = reservoir.read(bench.store, order.champion.reservoir_sha256)
    digest = reservoir.write(bench.store, reservoir.without(kept, order.outside))
    for attempt in patiently():
        with attempt, bench.sessions.begin() as session:
            job = lease.hold(session, bench.claim)
            champion = session.get_one(ModelVersion, order.champion.id, with_for_update=True)
            if champion.status is not VersionStatus.CHAMPION:
                lease.release(session, job, why="the champion was replaced meanwhile")
                return
            purge.keep_files(session, bench.store, [digest])
            _drop_earlier(session, job.id)
            resume.begin(session, order, job.attempt, {})
            job.mode = job.mode_reason = job.config = None
            replaced, champion.reservoir_sha256 = champion.reservoir_sha256, digest
            _bury(session, order, job.id)
            trail.record(
                session, "worker", "reservoir.replaced", champion.id,
                job=str(job.id), reservoir_sha256=digest, replaced_sha256=replaced,
                samples=len(order.outside),
            )  # fmt: skip
            lease.complete(session, job)
    for attempt in patiently():
        with attempt, bench.sessions.begin() as session:
            purge.delete_unnamed(session, bench.store, [replaced])


def _bury(session: Session, order: Order, job_id: UUID) -> None:
    """One tombstone for every sample named, whether the model had learned from it or not.

    Those that other jobs made forgotten since they were named have one already: the requests say
    how many.
    """
    key = tombstones.key_of(order.model.id)
    gone = (
        select(func.count())
        .select_from(RequestSample)
        .join(Tombstone, Tombstone.digest == tombstones.digest(key, RequestSample.sample_id))
        .where(
            RequestSample.request_id == DeletionTarget.request_id,
            Tombstone.model_id == DeletionTarget.model_id,
        )
        .scalar_subquery()
    )
    served = update(DeletionTarget).filter_by(job_id=job_id)
    session.execute(
        served.values(already_forgotten=gone).execution_options(synchronize_session=False)
    )
    named = [*order.forget_ids, *sorted(order.outside)]
    each = func.unnest(literal(named, ARRAY(String))).table_valued("sample_id").render_derived()
    session.execute(
        insert(Tombstone).from_select(
            ["model_id", "digest", "job_id"],
            select(
                literal(order.model.id), tombstones.digest(key, each.c.sample_id), literal(job_id)
            ),
        )
    )
    reference_tables.forget(session, order.model.id, named)
    if named:
        session.execute(update(Job).filter_by(id=job_id).values(forgotten_at=func.now()))


def _evaluation(job_id: UUID, moment: str, measured: Measured) -> Evaluation:
    """The row of an evaluation: columns for what is compared over jobs, JSON for the rest."""
    figures = asdict(measured)
    columns = {name: figures.pop(name) for name in EVALUATION_COLUMNS}
    return Evaluation(job_id=job_id, moment=moment, figures=figures, **columns)
