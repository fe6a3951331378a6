"""What an unlearning job leaves in the store and in the database."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any
from uuid import UUID

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from domain import forgetting, functions, jobs, trail
from domain.drift import Drift
from domain.events import VersionCreated, VersionPromoted
from domain.states import Mode, RequestStatus, Verdict, VersionStatus
from domain.tables import (
    DeletionTarget,
    Evaluation,
    Job,
    ModelVersion,
    Round,
    VerdictTest,
)
from worker.data import kept_answers, preview, reservoir, specimens, version_statistics
from worker.engine import environment, lease
from worker.engine.workbench import Workbench
from worker.jobs import frozen_head
from worker.jobs.unlearn import acceptance, pooled, refit, resume
from worker.jobs.unlearn.champion import drift_of, users_code
from worker.jobs.unlearn.inputs import Inputs, Order, read_order
from worker.jobs.unlearn.plan import Plan
from worker.jobs.unlearn.pooled import Pool
from worker.jobs.unlearn.resume import Point
from worker.jobs.unlearn.rounds import JudgedVersion
from worker.jobs.unlearn.unchanged import made_with
from worker.networks import weights
from worker.store import version_files
from worker.unlearning.evaluation import Evaluation as Measured

STANDS, EXCEEDED = "stands", "exceeded"
"""What may become of an acceptance; see the event `job.completed`."""

EVALUATION_COLUMNS = (
    "forget_accuracy", "retain_accuracy", "holdout_accuracy",
    "da_forget", "da_holdout", "da_gap", "da_gap_low", "da_gap_high",
)  # fmt: skip


def start(
    bench: Workbench,
    order: Order,
    plan: Plan,
    before: Measured,
    points: Mapping[int, Point],
    *,
    compared: int,
) -> None:
    """Store how the job runs and the champion's evaluation. What an earlier attempt stored is
    deleted, except for cycles that need not be repeated.

    Args:
        compared: how many of the champion's specimens are as they were.
    """
    for attempt in bench.transaction():
        with attempt as session:
            job = lease.hold(session, bench.claim)
            job.environment = environment.describe(bench.device, users_code(bench, order.model))
            job.mode, job.mode_reason = plan.mode, plan.reason
            job.base_version_id = order.champion.id
            _drop_earlier(session, job.id)
            resume.begin(session, order, job.attempt, points)
            evaluation = _evaluation(job.id, "before", before)
            evaluation.figures["specimens_compared"] = compared
            session.add(evaluation)


def _drop_earlier(session: Session, job_id: UUID) -> None:
    """Delete what an earlier attempt measured."""
    for table in (Evaluation, VerdictTest, Round):
        session.execute(delete(table).filter_by(job_id=job_id))


def new_version(
    bench: Workbench,
    order: Order,
    inputs: Inputs,
    made: JudgedVersion,
    before: Measured,
    after: Measured,
    pool: Pool | None,
) -> None:
    """Write the files first, under their hashes; then everything else in one transaction.

    A version with the verdict `fail` becomes a candidate: a person decides whether it is served,
    and until then nothing counts as forgotten. Where it is made in the place of one that a person
    accepted, that acceptance may cover it.
    """
    digests = _write_files(bench, order, inputs, made)
    for attempt in bench.transaction():
        with attempt as session:
            job = lease.hold(session, bench.claim)
            champion = session.get_one(ModelVersion, order.champion.id, with_for_update=True)
            if champion.status is not VersionStatus.CHAMPION:
                jobs.release(
                    session, job, actor="worker", why="the champion was replaced meanwhile"
                )
                return
            if not _is_still_the_order(session, order):
                jobs.release(
                    session, job, actor="worker", why="what its requests name changed meanwhile"
                )
                return
            accepted = _acceptance(session, job, made)
            held_back = made.verdict is Verdict.FAIL and accepted != STANDS
            job.mode, job.config, job.verdict = made.mode, made.config, made.verdict
            version_files.keep_files(session, bench.store, digests.values())
            of_job = {"job_id": job.id, "number": made.number}
            session.execute(update(Round).filter_by(**of_job).values(kept=True))
            session.add(_evaluation(job.id, "after", after))
            version = ModelVersion(
                model_id=order.model.id,
                number=_next_number(session, order.model.id),
                status=VersionStatus.CANDIDATE,
                mode=made.mode,
                parent_id=champion.id,
                job_id=job.id,
                **digests,
            )
            version.figures = _figures(order, version, inputs, before, after)
            if held_back:
                session.add(version)
                session.flush()
            else:
                forgetting.promote(session, version, over=champion, actor="worker")
            trail.record(
                session, "worker", version.id,
                VersionCreated(
                    model=order.model.id, number=version.number, job=job.id,
                    weights_sha256=version.weights_sha256,
                    statistics_sha256=version.statistics_sha256,
                    reservoir_sha256=version.reservoir_sha256,
                    features_sha256=version.features_sha256,
                    backbone_sha256=_backbone(version),
                    parent_sha256=champion.weights_sha256, samples=len(order.forget),
                    status=version.status, mode=version.mode,
                    measured=sum(after.every_class.samples),
                    right_before=sum(before.every_class.right),
                    right_after=sum(after.every_class.right),
                    lost_classes=after.lost_classes or None,
                    accept_accuracy=_accepted_accuracy(champion),
                ),
            )  # fmt: skip
            if accepted == STANDS:
                promoted = VersionPromoted(
                    number=version.number,
                    weights_sha256=version.weights_sha256,
                    accepted_job=job.accepted_job_id,
                )
                trail.record(session, "worker", version.id, promoted)
            if held_back:
                _ask_anew(session, job.id)
                outcome = RequestStatus.NEEDS_REVIEW
            else:
                forgetting.record_forgotten(session, job_id=job.id, model_id=order.model.id)
                outcome = RequestStatus.COMPLETED
            jobs.complete(session, job, actor="worker", requests=outcome, acceptance=accepted)
            served = version.status is VersionStatus.CHAMPION
            pooled.store(session, pool, job, version=version.number, served=served)


def _is_still_the_order(session: Session, order: Order) -> bool:
    """Whether what will count as forgotten is what the version was made without, or changed to
    forget."""
    now = read_order(session, order.job.id)
    named = (now.forget_ids, now.outside) == (order.forget_ids, order.outside)
    return named and now.dataset.state == order.dataset.state


def _acceptance(session: Session, job: Job, made: JudgedVersion) -> str | None:
    """What becomes of the acceptance that the job is to make good; None where none is needed."""
    if job.accepted_job_id is None or made.verdict is not Verdict.FAIL:
        return None
    return STANDS if acceptance.covers(session, job.accepted_job_id, made.audit) else EXCEEDED


def _ask_anew(session: Session, job_id: UUID) -> None:
    """What waits for a decision about this job waits under no earlier one."""
    session.execute(
        update(DeletionTarget)
        .where(DeletionTarget.job_id == job_id, DeletionTarget.accepted_job_id.is_not(None))
        .values(accepted_job_id=None)
        .execution_options(synchronize_session=False)
    )


def _next_number(session: Session, model_id: UUID) -> int:
    """The next version number. Candidates have numbers too: the champion's may not be the
    highest."""
    highest = select(func.max(ModelVersion.number)).filter_by(model_id=model_id)
    return session.scalars(highest).one() + 1


def _write_files(
    bench: Workbench, order: Order, inputs: Inputs, made: JudgedVersion
) -> dict[str, str]:
    """Store the new version's weights, statistics and reservoir; return their digests."""
    preprocessing, maker = order.model.preprocessing, made_with(bench, order.model)
    weights_sha256 = bench.store.put(lambda path: weights.save(made.network.model, path))
    kept = specimens.taken(
        inputs.kept, made.network, preprocessing, order.dataset.definition, maker
    )
    measured = [
        (rows["sample_id"].to_pylist(), outputs)
        for name, rows in inputs.rows().items()
        if (outputs := getattr(made.observed, name)) is not None
    ]
    kept = kept_answers.taken(kept, measured, {"weights": weights_sha256, **maker})
    known = version_statistics.describe(made.observed.holdout, made.moments, inputs.class_counts)
    features = {}
    if functions.is_head(order.model.recipe):
        features["features_sha256"] = refit.remaining(bench, order).store(bench.store)
    return {
        **features,
        "weights_sha256": weights_sha256,
        "statistics_sha256": version_statistics.write(bench.store, known),
        "reservoir_sha256": preview.store_reservoir(bench.store, kept, preprocessing),
    }


def _figures(
    order: Order, version: ModelVersion, inputs: Inputs, before: Measured, after: Measured
) -> dict[str, Any]:
    """The figures of the new version, under the same names as those of version 1."""
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
        moved = drift_of(order).further(forgotten=len(order.forget), accuracy_change=change)
    known = {key: each for key, each in order.champion.figures.items() if key != "declared"}
    return {
        **known,
        "retain_accuracy": after.retain_accuracy,
        "holdout_accuracy": after.holdout_accuracy,
        "test_accuracy": after.test_accuracy,
        "accuracy_of_all_classes": after.every_class.accuracy,
        "reservoir": kept,
        "drift": moved.to_figures(),
    }


def _accepted_accuracy(champion: ModelVersion) -> bool | None:
    """Whether the accuracy with which the champion, or one it was made from, was registered did not
    count."""
    return (champion.figures.get("accuracy_check") or {}).get("accepted") or None


def _backbone(version: ModelVersion) -> list[str] | None:
    """The digests of the backbone that nothing but a head was fitted on; None for other models."""
    found: dict[str, Any] = version.figures.get(frozen_head.NAME, {})
    return found.get("sha256")


def _accuracy(measured: Measured) -> float:
    """The accuracy on samples that were neither trained on nor forgotten."""
    test, holdout = measured.test_accuracy, measured.holdout_accuracy
    return (holdout if test is None else test) or 0.0


def without_training(bench: Workbench, order: Order) -> None:
    """Complete a job with nothing left to forget: only the reservoir changes.

    This happens when other requests had all the training samples forgotten meanwhile, or when only
    hold-out or test samples are named. The champion stays, with a reservoir that lacks them.
    """
    kept = reservoir.read(bench.store, order.champion.reservoir_sha256)
    kept = reservoir.without(kept, order.outside)
    digest = preview.store_reservoir(bench.store, kept, order.model.preprocessing)
    for attempt in bench.transaction():
        with attempt as session:
            job = lease.hold(session, bench.claim)
            champion = session.get_one(ModelVersion, order.champion.id, with_for_update=True)
            if champion.status is not VersionStatus.CHAMPION:
                jobs.release(
                    session, job, actor="worker", why="the champion was replaced meanwhile"
                )
                return
            version_files.keep_files(session, bench.store, [digest])
            _drop_earlier(session, job.id)
            resume.begin(session, order, job.attempt, {})
            job.mode = job.mode_reason = job.config = None
            replaced = forgetting.replace_reservoir(
                session,
                champion,
                digest,
                job_id=job.id,
                left_out=len(order.outside),
                actor="worker",
            )
            forgetting.record_forgotten(session, job_id=job.id, model_id=order.model.id)
            jobs.complete(session, job, actor="worker")
    for attempt in bench.transaction():
        with attempt as session:
            version_files.delete_unnamed(session, bench.store, [replaced])


def _evaluation(job_id: UUID, moment: str, measured: Measured) -> Evaluation:
    """The row of an evaluation: columns for figures compared across jobs, JSON for the rest."""
    figures = asdict(measured)
    columns = {name: figures.pop(name) for name in EVALUATION_COLUMNS}
    return Evaluation(job_id=job_id, moment=moment, figures=figures, **columns)
