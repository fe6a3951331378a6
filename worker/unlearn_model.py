"""The job that makes a model forget: load, evaluate, unlearn, evaluate, store.

The shell around `worker.unlearning`: all the I/O is here, and three short transactions.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any
from uuid import UUID

import pyarrow as pa
import torch
from sqlalchemy import ARRAY, String, delete, exists, func, insert, literal, select
from sqlalchemy.orm import Session

from service import audit
from service.errors import JobError
from service.states import Objective, Split, VersionStatus
from service.tables import (
    AlignmentScore,
    Dataset,
    DeletionTarget,
    Evaluation,
    Job,
    Model,
    ModelVersion,
    RequestSample,
    Sample,
    Tombstone,
)
from worker import architectures, environment, inputs, protocol, reservoir, statistics
from worker.index_dataset import open_source
from worker.unlearning.alignment import Moments
from worker.unlearning.config import Config, default_config
from worker.unlearning.config import Objective as Method
from worker.unlearning.evaluation import Evaluation as Measured
from worker.unlearning.evaluation import Observed, evaluate, retain_moments
from worker.unlearning.forget import CycleScores, unlearn
from worker.unlearning.network import Network
from worker.unlearning.samples import Samples
from worker.workbench import Workbench

BATCH = 256

EVALUATION_COLUMNS = (
    "forget_accuracy", "retain_accuracy", "holdout_accuracy",
    "da_forget", "da_holdout", "da_gap", "da_gap_low", "da_gap_high",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Order:
    """What the job is to do, read once."""

    job: Job
    model: Model
    dataset: Dataset
    champion: ModelVersion
    forget: Sequence[tuple[str, int]]
    """Ids and positions of the training samples to forget, in the order of their positions."""

    outside: frozenset[str]
    """Named ids outside the training split: nothing to unlearn, but not to be kept either."""


@dataclass(frozen=True, slots=True)
class Material:
    """Everything the method works on."""

    forget: Samples
    retain: Samples
    holdout: Samples
    test: Samples | None
    class_counts: torch.Tensor
    """(C,) training samples that stay."""

    kept: pa.Table
    """The reservoir without the samples to forget."""

    def shown_to(self, network: Network) -> Observed:
        """What the network makes of all of it."""
        return Observed.of(
            network,
            forget=self.forget,
            retain=self.retain,
            holdout=self.holdout,
            test=self.test,
            batch_size=BATCH,
        )


def unlearn_model(bench: Workbench) -> None:
    """Make the champion forget the samples of the job's requests, as a new version.

    Raises:
        JobError: a file, the data or the model is not what was registered.
        UnlearningError: the method cannot do it.
        LeaseLost: the job is somebody else's by now.
    """
    with bench.sessions.begin() as session:
        order = _read_order(session, bench.claim.job_id)
    if not order.forget:
        _record_without_training(bench, order)
        return
    bench.report("loading the model and its data", 0.02)
    network = _champion(bench, order)
    known = statistics.read(bench.store, order.champion.statistics_sha256)
    material = _material(bench, order, known.class_counts)
    config = _configure(bench, order, material)
    bench.report("evaluating the champion", 0.05)
    observed = material.shown_to(network)
    if order.champion.parent_id is None:  # measured over the whole dataset, by registration
        moments = known.moments.without(observed.forget.features)
    else:  # estimated from the reservoir, as it was: better estimated from it as it is
        moments = retain_moments(observed.retain, material.class_counts)
    before = evaluate(
        observed,
        class_counts=material.class_counts,
        k=config.k,
        moments=moments,
        seed=config.seed,
    )
    _record_start(bench, order, config, before)
    changed = _unlearn(bench, network, moments, material, config)
    bench.report("evaluating the new version", 0.95)
    observed = material.shown_to(changed)
    after = evaluate(observed, class_counts=material.class_counts, k=config.k, seed=config.seed)
    _record(bench, order, changed, material, observed, after)


def _read_order(session: Session, job_id: UUID) -> Order:
    job = session.get_one(Job, job_id)
    model = session.get_one(Model, job.model_id)
    champion = session.scalars(
        select(ModelVersion).filter_by(model_id=model.id, status=VersionStatus.CHAMPION)
    ).one()
    # Not `NOT IN`: beyond some 100,000 tombstones Postgres would go through all of them each time.
    forgotten = exists().where(
        Tombstone.model_id == model.id, Tombstone.sample_id == Sample.sample_id
    )
    named = (
        select(RequestSample.sample_id)
        .join(DeletionTarget, DeletionTarget.request_id == RequestSample.request_id)
        .where(DeletionTarget.job_id == job.id, DeletionTarget.model_id == model.id)
    )
    rows = session.execute(
        select(Sample.sample_id, Sample.position, Sample.split)
        .where(
            Sample.dataset_id == model.dataset_id,
            Sample.sample_id.in_(named),
            ~forgotten,
        )
        .order_by(Sample.position)
    ).all()
    return Order(
        job,
        model,
        session.get_one(Dataset, model.dataset_id),
        champion,
        [(row.sample_id, row.position) for row in rows if row.split is Split.TRAIN],
        frozenset(row.sample_id for row in rows if row.split is not Split.TRAIN),
    )


def _champion(bench: Workbench, order: Order) -> Network:
    module = architectures.build(order.model.architecture, bench.settings.factories)
    architectures.load_weights(module, bench.store.path(order.champion.weights_sha256))
    return Network(
        module.to(bench.device).eval(),
        head=order.model.head,
        prepare=inputs.preparer(order.model.preprocessing),
        pool=architectures.pooling(module, order.model.head),
    )


def _material(bench: Workbench, order: Order, class_counts: torch.Tensor) -> Material:
    """Read the forget set from the dataset, the rest from the version's reservoir."""
    model, definition = order.model, order.dataset.definition
    source = open_source(bench, order.dataset)
    forget = inputs.fetch(source, order.forget, model.preprocessing)
    kept = reservoir.without(
        reservoir.read(bench.store, order.champion.reservoir_sha256),
        {sample_id for sample_id, _ in order.forget} | order.outside,
    )
    retain, holdout, test = (
        reservoir.samples(kept, split, model.preprocessing, definition) for split in Split
    )
    if not len(retain) or not len(holdout):
        raise JobError(
            "Without these samples no retain or no hold-out samples are left, so nothing can be "
            "kept or calibrated. Train a new model without them instead."
        )
    class_counts = class_counts - forget.labels.bincount(minlength=len(class_counts))
    if order.job.objective is Objective.REMOVE_CLASS and class_counts[forget.labels].any():
        raise JobError(
            "remove_class needs every training sample of the classes it names; some are missing. "
            "Name them all, or ask for untrain_samples."
        )
    return Material(forget, retain, holdout, test if len(test) else None, class_counts, kept)


def _configure(bench: Workbench, order: Order, material: Material) -> Config:
    """The defaults for this problem. The seed follows from the job, so that on the CPU a second
    attempt gives what the first would have given."""
    return default_config(
        Method(str(order.job.objective)),
        forget_count=len(material.forget),
        reservoir_count=len(material.retain),
        seed=bench.claim.job_id.int % 2**31,
    )


def _unlearn(
    bench: Workbench, network: Network, moments: Moments, material: Material, config: Config
) -> Network:
    """The changed network. After every cycle its scores are a row in Postgres."""

    def keep(scores: CycleScores) -> None:
        with bench.sessions.begin() as session:
            protocol.report(
                session,
                bench.claim,
                phase=f"cycle {scores.cycle} of {config.cycles}",
                progress=0.1 + 0.8 * scores.cycle / config.cycles,
            )
            session.add(
                AlignmentScore(
                    job_id=bench.claim.job_id, attempt=bench.claim.attempt, **asdict(scores)
                )
            )

    changed = unlearn(
        network,
        forget=material.forget,
        retain=material.retain,
        holdout=material.holdout,
        moments=moments,
        class_counts=material.class_counts,
        config=config,
        on_cycle=keep,
    )
    return network.around(changed)


def _record_start(bench: Workbench, order: Order, config: Config, before: Measured) -> None:
    """Store how the job runs, and how the champion stood; what an earlier attempt left goes."""
    with bench.sessions.begin() as session:
        job = protocol.hold(session, bench.claim)
        job.config, job.environment = asdict(config), environment.describe(bench.device)
        job.base_version_id = order.champion.id
        session.execute(delete(AlignmentScore).filter_by(job_id=job.id))
        session.execute(delete(Evaluation).filter_by(job_id=job.id))
        session.add(_evaluation(job.id, "before", before))


def _record(
    bench: Workbench,
    order: Order,
    changed: Network,
    material: Material,
    observed: Observed,
    after: Measured,
) -> None:
    """Write the files first, under their hashes; then everything else in one transaction."""
    digests = _write_files(bench, changed, material, observed)
    with bench.sessions.begin() as session:
        job = protocol.hold(session, bench.claim)
        champion = session.get_one(ModelVersion, order.champion.id, with_for_update=True)
        if champion.status is not VersionStatus.CHAMPION:
            raise JobError("The champion was replaced while the job ran; submit the request anew.")
        champion.status, champion.superseded_at = VersionStatus.SUPERSEDED, func.now()
        session.flush()
        version = ModelVersion(
            model_id=order.model.id,
            number=champion.number + 1,
            status=VersionStatus.CHAMPION,
            parent_id=champion.id,
            job_id=job.id,
            figures=_figures(champion, material, after),
            **digests,
        )
        session.add_all([version, _evaluation(job.id, "after", after)])
        session.flush()
        _bury(session, order, job.id)
        audit.record(session, "worker", "version.superseded", champion.id, number=champion.number)
        audit.record(
            session, "worker", "version.created", version.id,
            model=str(order.model.id), number=version.number, job=str(job.id), **digests,
            parent_sha256=champion.weights_sha256, samples=len(order.forget),
        )  # fmt: skip
        protocol.complete(session, job)


def _write_files(
    bench: Workbench, changed: Network, material: Material, observed: Observed
) -> dict[str, str]:
    """Put weights, statistics and reservoir of the new version into the store; their digests."""
    moments = retain_moments(observed.retain, material.class_counts)
    known = statistics.describe(observed.holdout, moments, material.class_counts)
    return {
        "weights_sha256": bench.store.put(
            lambda path: architectures.save_weights(changed.model, path)
        ),
        "statistics_sha256": statistics.write(bench.store, known),
        "reservoir_sha256": reservoir.write(bench.store, material.kept),
    }


def _figures(parent: ModelVersion, material: Material, after: Measured) -> dict[str, Any]:
    """What is known of the new version, under the names that version 1 has."""
    kept = {"train": material.retain, "holdout": material.holdout, "test": material.test or ()}
    return {
        **parent.figures,
        "retain_accuracy": after.retain_accuracy,
        "holdout_accuracy": after.holdout_accuracy,
        "test_accuracy": after.test_accuracy,
        "reservoir": {split: len(samples) for split, samples in kept.items()},
    }


def _record_without_training(bench: Workbench, order: Order) -> None:
    """Nothing named is left for the model to forget: only what is kept for its jobs changes.

    So it is when other requests had all training samples forgotten meanwhile, and when hold-out
    or test samples alone are named. The champion stays, with a reservoir that lacks them.
    """
    kept = reservoir.read(bench.store, order.champion.reservoir_sha256)
    digest = reservoir.write(bench.store, reservoir.without(kept, order.outside))
    with bench.sessions.begin() as session:
        job = protocol.hold(session, bench.claim)
        champion = session.get_one(ModelVersion, order.champion.id, with_for_update=True)
        replaced, champion.reservoir_sha256 = champion.reservoir_sha256, digest
        _bury(session, order, job.id)
        audit.record(
            session, "worker", "reservoir.replaced", champion.id,
            job=str(job.id), reservoir_sha256=digest, replaced_sha256=replaced,
            samples=len(order.outside),
        )  # fmt: skip
        protocol.complete(session, job)
    with bench.sessions.begin() as session:
        named = session.scalar(select(exists().where(ModelVersion.reservoir_sha256 == replaced)))
    if not named:  # it holds what was to be forgotten
        bench.store.remove(replaced)


def _bury(session: Session, order: Order, job_id: UUID) -> None:
    """One tombstone for every sample named, whether the model had learned from it or not."""
    named = [sample_id for sample_id, _ in order.forget] + sorted(order.outside)
    session.execute(
        insert(Tombstone).from_select(
            ["model_id", "sample_id", "job_id"],
            select(
                literal(order.model.id), func.unnest(literal(named, ARRAY(String))), literal(job_id)
            ),
        )
    )


def _evaluation(job_id: UUID, moment: str, measured: Measured) -> Evaluation:
    """The row of an evaluation: columns for what is compared over jobs, JSON for the rest."""
    figures = asdict(measured)
    columns = {name: figures.pop(name) for name in EVALUATION_COLUMNS}
    return Evaluation(job_id=job_id, moment=moment, figures=figures, **columns)
