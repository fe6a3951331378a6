"""The job that predicts what a deletion request would involve. It changes nothing.

Shapes: F forget samples, C classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from time import monotonic
from typing import Any

import torch
import torch.nn.functional as F
from sqlalchemy import exists, extract, func, select
from sqlalchemy.orm import Session
from torch import Tensor

from domain import jobs, training_time
from domain.errors import JobError
from domain.states import JobKind, JobStatus, Mode, Verdict
from domain.tables import (
    Estimate,
    EstimateSample,
    EstimateTarget,
    Job,
    ReferenceTables,
    Round,
    Sample,
    Tombstone,
)
from domain.training_time import Measured, TrainingTime
from worker.data import decode, reference_tables, version_statistics
from worker.data.reference_tables import Table
from worker.engine import environment, lease
from worker.engine.workbench import Workbench
from worker.jobs import frozen_head
from worker.jobs.unlearn import choice, job_time
from worker.jobs.unlearn.champion import load_champion
from worker.jobs.unlearn.inputs import BATCH, Inputs, Order, order_of, read_inputs
from worker.jobs.unlearn.job_time import steps
from worker.jobs.unlearn.unchanged import answered_by, require_unchanged
from worker.unlearning.alignment import matching_weights
from worker.unlearning.audit.verdict import exchangeability
from worker.unlearning.config import default_config
from worker.unlearning.evaluation import Observed, Outputs, accuracy
from worker.unlearning.network import Network
from worker.unlearning.samples import skew

MEASURED = 2000
"""The most forget samples that are measured."""

TIMED_STEPS = 3
REMEMBERED = 20
"""How many of the newest finished jobs a prediction of time uses."""


@dataclass(frozen=True, slots=True)
class Question:
    """The question of the job, read once."""

    order: Order
    labels: Tensor
    """(F,) int64, labels of the samples to forget."""

    timings: Sequence[tuple[Mode, int, float]]
    """For each job of the model that needed one round: its mode, its number of samples and its
    seconds; newest first."""

    training: TrainingTime | None
    """What a retraining takes on this device."""


def estimate(bench: Workbench) -> None:
    """Run the champion over the named samples once, and store the estimate.

    Raises:
        JobError: a file, the data or the model is not what was registered.
        LeaseLost: another worker has the job.
    """
    started = monotonic()
    for attempt in bench.transaction():
        with attempt as session:
            question = _read_question(session, bench)
    if not question.order.forget:
        _record(bench, question.order, {})
        return
    bench.report("loading the model and its data", 0.1)
    champion = load_champion(bench, question.order)
    known = version_statistics.read(bench.store, question.order.champion.statistics_sha256)
    planned = _planned(bench, question.order, known.class_counts)
    drawn, inputs = _draw(bench, question, known.class_counts)
    require_unchanged(bench, drawn.model, drawn.dataset, champion, inputs.source, inputs.kept)
    loaded = monotonic()
    bench.report("looking at the samples", 0.4)
    kept = inputs.kept_of(answered_by(bench, drawn.model, drawn.champion))
    observed = inputs.shown_to(champion, kept)
    measured = _measured(bench, drawn, inputs, observed, known.class_counts, question.labels)
    looked = monotonic()
    bench.report("timing", 0.9)
    # The new version is looked at too, and nothing is kept of that.
    overhead = (loaded - started) + 2 * (looked - loaded) + _spared_seconds(champion, inputs, kept)
    predicted = _predicted(question, planned["mode"], champion, inputs, overhead)
    _record(bench, question.order, {**planned, **measured, **predicted})


def _read_question(session: Session, bench: Workbench) -> Question:
    job = session.get_one(Job, bench.claim.job_id)
    asked = session.scalars(
        select(Estimate)
        .join(EstimateTarget, EstimateTarget.estimate_id == Estimate.id)
        .where(EstimateTarget.job_id == job.id)
    ).one()
    named = select(EstimateSample.sample_id).filter_by(job_id=job.id)
    order = order_of(session, job, named, exact_asked=asked.exact)
    rows = session.execute(
        select(Sample.sample_id, Sample.label).where(
            Sample.dataset_id == order.model.dataset_id, Sample.sample_id.in_(named)
        )
    )
    return Question(
        order,
        labels_of(order, {row.sample_id: row.label for row in rows}),
        _timings(session, order),
        training_time.of_device(order.model.timings, environment.name_of(bench.device))
        or _of_references(session, order),
    )


def labels_of(order: Order, stored: dict[str, int]) -> Tensor:
    """(n,) the labels of the samples to forget, in the model's order, from those in the index."""
    labels = torch.tensor([stored[name] for name in order.forget_ids], dtype=torch.int64)
    return decode.outputs_for(labels, order.model.preprocessing)


def _timings(session: Session, order: Order) -> list[tuple[Mode, int, float]]:
    seconds = extract("epoch", Job.finished_at - Job.started_at)
    rows = session.execute(
        select(Job.mode, func.count(Tombstone.digest), seconds)
        .outerjoin(Tombstone, Tombstone.job_id == Job.id)
        .where(
            Job.model_id == order.model.id,
            Job.kind == JobKind.UNLEARN,
            Job.status == JobStatus.COMPLETED,
            Job.mode.is_not(None),
            Job.attempt == 1,
            Job.verdict.is_distinct_from(Verdict.FAIL),
            ~exists().where(Round.job_id == Job.id, Round.number > 1),
        )
        .group_by(Job.id)
        .order_by(Job.id.desc())
        .limit(REMEMBERED)
    )
    return [(mode, count, float(took)) for mode, count, took in rows if mode is not None]


def _of_references(session: Session, order: Order) -> TrainingTime | None:
    """The same as a release before this one left it: the time of the job that trained reference
    models, each of which learned from half of the samples."""
    took = session.execute(
        select(extract("epoch", Job.finished_at - Job.started_at), ReferenceTables.models)
        .join(Job, Job.id == ReferenceTables.job_id)
        .where(ReferenceTables.model_id == order.model.id)
    ).one_or_none()
    if took is None:
        return None
    return TrainingTime(Measured.REFERENCE_MODELS, 2 * float(took[0]) / took[1], samples=0)


def _planned(bench: Workbench, order: Order, class_counts: Tensor) -> dict[str, Any]:
    """How the job would make its version under the model's policy; None if it would fail."""
    remaining = int(class_counts.sum())
    planned: dict[str, Any] = {"forgotten_share": len(order.forget) / remaining}
    try:
        chosen = choice.foreseen(bench, order, remaining=remaining)
    except JobError as error:
        return {**planned, "mode": None, "mode_reason": str(error)}
    return {**planned, "mode": chosen.mode, "mode_reason": chosen.reason}


def _draw(bench: Workbench, question: Question, class_counts: Tensor) -> tuple[Order, Inputs]:
    """What is measured: at most MEASURED forget samples, and what is left without all of them.
    Nothing here needs the test samples."""
    order, labels = question.order, question.labels
    generator = torch.Generator().manual_seed(bench.claim.job_id.int % 2**31)
    chosen = set(proportional(labels, MEASURED, generator).tolist())
    drawn = replace(
        order,
        forget=[named for index, named in enumerate(order.forget) if index in chosen],
        outside=order.outside | set(order.forget_ids),
    )
    others = torch.tensor([index not in chosen for index in range(len(labels))])
    leaving = labels[others].bincount(minlength=len(class_counts))
    return drawn, replace(read_inputs(bench, drawn, class_counts - leaving), test=None)


def proportional(labels: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Indices of at most `count` samples with these labels (N,), in their class mix."""
    order = torch.randperm(len(labels), generator=generator)
    place = torch.empty(len(labels), dtype=torch.float64)  # (N,) within its class, in (0, 1)
    for label in labels.unique():  # type: ignore[no-untyped-call]
        mine = order[labels[order] == label]
        place[mine] = (torch.arange(len(mine)) + 0.5).double() / len(mine)
    return place.argsort(stable=True)[:count]


def _measured(
    bench: Workbench,
    drawn: Order,
    inputs: Inputs,
    observed: Observed,
    class_counts: Tensor,
    labels: Tensor,
) -> dict[str, Any]:
    """How far the samples differ from hold-out samples now, whether an audit could tell, and which
    classes would lose all of their training samples.

    Args:
        observed: the champion's outputs on all that is measured.
        class_counts: (C,) training samples that the champion has not forgotten.
        labels: (F,) of all samples to forget, not only of those that are measured.
    """
    for attempt in bench.transaction():
        with attempt as session:
            mine = reference_tables.read(session, drawn.model.id, drawn.forget_ids)
            unseen = reference_tables.read(session, drawn.model.id, inputs.audit_ids)
    known = reference_tables.scores(mine, unseen) if mine and unseen else None
    family = exchangeability(
        observed,
        class_counts=inputs.class_counts,
        references=known,
        groups=inputs.groups,
        seed=bench.claim.job_id.int % 2**31,
    )
    return {
        "measured": len(observed.forget.labels),
        "audit_has_power": family.rejected and family.lacking is None,
        "tests": [asdict(test) for test in family.tests],
        "remarks": [*filter(None, [family.lacking]), *family.remarks, *inputs.remarks],
        "memorisation": _memorisation(observed, mine),
        "lost_classes": _lost(observed.holdout, class_counts, labels),
    }


def _lost(holdout: Outputs, class_counts: Tensor, labels: Tensor) -> list[dict[str, Any]]:
    """The classes of which no training sample would stay, and what the champion knows of them."""
    leaving = labels.bincount(minlength=len(class_counts))
    gone = ((leaving > 0) & (leaving >= class_counts)).nonzero().flatten().tolist()
    of_class = {label: holdout.select(holdout.labels == label) for label in gone}
    return [
        {
            "label": label,
            "training_samples": int(leaving[label]),
            "accuracy": accuracy(outputs),
            "holdout_samples": len(outputs.labels),
        }
        for label, outputs in of_class.items()
    ]


def _memorisation(observed: Observed, known: Table | None) -> dict[str, Any] | None:
    """How much of its answers the champion owes to training on these samples; None if there is
    nothing to compare them with."""
    if known is not None:
        gap = (known.in_mean - known.out_mean).mean().item()
        return {"measure": "confidence_gap", "value": gap}
    unseen = observed.holdout
    if not len(unseen.labels):
        return None
    weights = matching_weights(unseen.labels, observed.forget.labels)
    gap = (weights @ unseen.losses() - observed.forget.losses().mean()).item()
    return {"measure": "loss_gap", "value": gap}


def _spared_seconds(champion: Network, inputs: Inputs, kept: Mapping[str, Outputs]) -> float:
    """How long it would take to look at the samples whose answers were kept."""
    if not kept:
        return 0.0
    some = inputs.retain.select(torch.arange(min(BATCH, len(inputs.retain))))
    started = monotonic()
    Outputs.of(champion, some, BATCH)
    spared = sum(len(outputs.labels) for outputs in kept.values())
    return (monotonic() - started) * spared / len(some)


def _predicted(
    question: Question, mode: Mode | None, champion: Network, inputs: Inputs, overhead: float
) -> dict[str, Any]:
    """How long the job would take, and the basis of that figure."""
    alike = [(count, took) for how, count, took in question.timings if how is mode]
    if mode is None:
        seconds, basis = None, "the job would fail"
    elif alike:
        seconds = job_time.line(alike).of(len(question.order.forget))
        basis = f"{len(alike)} finished jobs of this model"
    elif mode is Mode.APPROXIMATE:
        seconds = overhead + _steps_seconds(question, champion, inputs)
        basis = f"{TIMED_STEPS} training steps timed on this worker, times the steps of a job"
    elif (frozen := question.order.champion.figures.get(frozen_head.NAME)) is not None:
        seconds, basis = overhead + frozen["refit"]["seconds"], "the head's fit at registration"
    elif (trained := question.training) is not None:
        remain = int(inputs.class_counts.sum())
        seconds, basis = overhead + trained.on(remain), trained.basis
    else:
        seconds, basis = None, "no training of this model has been timed"
    return {"predicted_seconds": seconds, "prediction_basis": basis}


def _steps_seconds(question: Question, champion: Network, inputs: Inputs) -> float:
    """Seconds for the steps of one round: forward and backward on a copy of the champion."""
    order = question.order
    config = default_config(
        removing=order.removing,
        forget_count=len(order.forget),
        reservoir_count=len(inputs.retain),
        skew=skew(inputs.forget.labels, inputs.class_counts),
    )
    model = champion.copy()
    model.model.requires_grad_(True)
    batch, labels = next(inputs.retain.batches(config.batch_size))
    started = monotonic()
    for _ in range(TIMED_STEPS):
        _, logits = model(batch)
        loss = F.cross_entropy(logits, labels.to(logits.device))
        loss.backward()  # type: ignore[no-untyped-call]  # torch
        loss.item()  # waits for the device
    return (monotonic() - started) / TIMED_STEPS * steps(config, len(order.forget))


def _record(bench: Workbench, order: Order, found: dict[str, Any]) -> None:
    """Store the answer; the named ids are deleted when the job ends."""
    for attempt in bench.transaction():
        with attempt as session:
            job = lease.hold(session, bench.claim)
            target = session.scalars(select(EstimateTarget).filter_by(job_id=job.id)).one()
            target.result = {
                "version": order.champion.number,
                "samples": len(order.forget),
                **found,
            }
            jobs.complete(session, job, actor="worker")
