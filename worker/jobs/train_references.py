"""The job that trains reference models, stores what they say of each sample, and discards them.

They are never written anywhere: each lives in this process until the next one replaces it. When its
worker is lost, the job starts again from the beginning. Shapes: N samples, C classes, K reference
models.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from time import monotonic

import torch
from sqlalchemy import select
from sqlalchemy.orm import Session
from torch import Tensor

from domain import jobs, tombstones, trail
from domain.errors import JobError
from domain.events import ReferencesCompleted
from domain.policy import Policy
from domain.preprocessing import kind_of
from domain.states import OPEN_JOBS, JobKind, Split, VersionStatus
from domain.tables import Dataset, Job, Model, ModelVersion, ReferenceTables, Sample
from domain.training_time import Measured, TrainingTime
from worker import budgets
from worker.data import decode, groups, reference_tables, reservoir, specimens
from worker.data.parquet import Source
from worker.data.source import open_source
from worker.engine import lease
from worker.engine.workbench import Workbench
from worker.jobs import timing
from worker.jobs.unlearn.champion import load_version
from worker.jobs.unlearn.unchanged import require_unchanged
from worker.networks import architectures, functions, recipes
from worker.networks.recipes import TrainingData
from worker.unlearning.evaluation import Outputs
from worker.unlearning.network import Network
from worker.unlearning.reference_models import Summarised, Summary, halves
from worker.unlearning.samples import Samples

BLOCK = 4096
"""Samples added up at a time."""

BATCH = 256
"""Samples that go through a network at a time."""


@dataclass(frozen=True, slots=True)
class Order:
    """What the job is to do, read once."""

    model: Model
    dataset: Dataset
    champion: ModelVersion
    classes: int
    count: int
    """K, the number of reference models."""

    recipe: str
    training: Sequence[tuple[str, int]]
    """Ids and positions, in the order of their positions."""

    holdout: Sequence[tuple[str, int]]

    groups: Tensor
    """(N,) int64: training samples that belong together."""


@dataclass(frozen=True, slots=True)
class Said:
    """What the reference models said, and who of them knew what."""

    summarised: Summarised
    seen: Tensor
    """(K, N) bool."""

    took: TrainingTime
    """What a training on all samples takes, judged by theirs on halves."""


def queue(session: Session, model: Model) -> None:
    """Queue the job that the model's policy asks for, if it does; one for what the model was before
    is of no use any more."""
    if Policy.model_validate(model.policy).reference_models:
        mine = select(Job).filter_by(kind=JobKind.TRAIN_REFERENCES, model_id=model.id)
        for job in session.scalars(mine.where(Job.status.in_(OPEN_JOBS)).with_for_update()):
            jobs.cancel(session, job, actor="worker")
        jobs.queue(session, JobKind.TRAIN_REFERENCES, actor="worker", model_id=model.id)


def train_references(bench: Workbench) -> None:
    """Train the reference models in turn, and store the two tables.

    Raises:
        JobError: the data is not as registered, its groups cannot be halved, or the architecture
            or recipe fails.
        LeaseLost: another worker has the job.
    """
    for attempt in bench.transaction():
        with attempt as session:
            order = _read_order(session, bench)
    started = monotonic()
    bench.report("reading the samples", 0.01)
    source = open_source(bench, order.dataset)
    _require_unchanged(bench, order, source)
    training, holdout = (
        decode.fetch(source, named, order.model.preprocessing)
        for named in (order.training, order.holdout)
    )
    if len(training) < 2 or not len(holdout):
        raise JobError(
            "Reference models need at least two training samples, and one hold-out sample whose "
            "group does not stand in training; register the model without them."
        )
    said = _summed_up(bench, order, training, holdout, read=monotonic() - started)
    bench.report("storing what they say", 0.95)
    _record(bench, order, said)


def _read_order(session: Session, bench: Workbench) -> Order:
    job = session.get_one(Job, bench.claim.job_id)
    model = session.get_one(Model, job.model_id)
    champion = session.scalars(
        select(ModelVersion).filter_by(model_id=model.id, status=VersionStatus.CHAMPION)
    ).one()
    forgotten = tombstones.has(model.id, Sample.sample_id)
    trained = groups.in_training(model.dataset_id)
    leaking = (Sample.split == Split.HOLDOUT) & (trained.c.group_digest == Sample.group_digest)
    rows = session.execute(
        select(Sample.sample_id, Sample.position, Sample.split)
        .outerjoin(trained, leaking)
        .where(
            Sample.dataset_id == model.dataset_id,
            Sample.split != Split.TEST,
            Sample.since <= model.state,
            ~forgotten,
            trained.c.group_digest.is_(None),
        )
        .order_by(Sample.position)
    ).all()
    by_split = {
        split: [(row.sample_id, row.position) for row in rows if row.split is split]
        for split in (Split.TRAIN, Split.HOLDOUT)
    }
    return Order(
        model,
        session.get_one(Dataset, model.dataset_id),
        champion,
        champion.figures["classes"],
        Policy.model_validate(model.policy).reference_models,
        model.recipe or recipes.DEFAULT,
        by_split[Split.TRAIN],
        by_split[Split.HOLDOUT],
        groups.codes(session, model, [sample_id for sample_id, _ in by_split[Split.TRAIN]]),
    )


def _require_unchanged(bench: Workbench, order: Order, source: Source) -> None:
    """Compare the champion's specimens: the reference models get the same inputs."""
    kept = reservoir.read(bench.store, order.champion.reservoir_sha256)
    if len(specimens.of_table(kept)):
        network = load_version(bench, order.model, order.dataset, order.champion)
        require_unchanged(bench, order.model, order.dataset, network, source, kept)


def _summed_up(
    bench: Workbench, order: Order, training: Samples, holdout: Samples, *, read: float
) -> Said:
    """Train K networks in turn; only the sums of what each one adds are kept, and its scores where
    they are not too many.

    The seed follows from the job, so on the CPU a second attempt gives the same result as the
    first.

    Args:
        read: seconds in which the samples were read.
    """
    seed = bench.claim.job_id.int % 2**31
    generator = torch.Generator().manual_seed(seed)
    seen = _divided(order, training, generator)  # (K, N)
    shared_out = halves(len(holdout), order.count, generator)  # (K, H)
    needed = 4 * order.count * (len(training) + len(holdout))
    kept = order.count if needed <= budgets.SCORES_BYTES else 0
    summary = Summary(len(training), len(holdout), order.classes, kept=kept)
    trained, looked = 0.0, 0.0
    for index in range(order.count):
        bench.report(
            f"training reference model {index + 1} of {order.count}",
            0.02 + 0.9 * index / order.count,
        )
        began = monotonic()
        network = _trained(bench, order, training.select(seen[index]), seed=seed + index)
        trained += monotonic() - began
        for first, outputs in _outputs(network, training, order):
            rows = seen[index, first : first + len(outputs.labels)]
            summary.add(first, outputs.logits, outputs.labels, rows, network=index)
        looked += monotonic() - began
        for first, outputs in _outputs(network, holdout, order):
            rows = shared_out[index, first : first + len(outputs.labels)]
            summary.add_holdout(first, outputs.logits, outputs.labels, rows, network=index)
    # From the beginning of each to when it had looked at all samples; the training once more, as
    # it was on half of them.
    seconds = read + (looked + trained) / order.count
    took = TrainingTime(Measured.REFERENCE_MODELS, seconds, len(training))
    return Said(summary.result(order.count), seen, took)


def _divided(order: Order, training: Samples, generator: torch.Generator) -> Tensor:
    """(K, N) bool: which reference model learns from which sample."""
    try:
        return halves(
            len(training), order.count, generator, groups=order.groups, labels=training.labels
        )
    except ValueError as error:
        raise JobError(
            f"The training samples cannot be halved for reference models: {error}. The model works "
            "without them; where the groups are wrong, correct the dataset's group column and "
            "register both under new names."
        ) from error


def _trained(bench: Workbench, order: Order, half: Samples, *, seed: int) -> Network:
    """A reference model: the architecture with new weights, trained on half of the samples."""
    prepare = decode.preparer(order.model.preprocessing, kind_of(order.dataset.definition))
    trained = recipes.fresh(
        order.model.architecture,
        bench.settings.factories,
        order.recipe,
        bench.settings.recipes,
        TrainingData(half, prepare),
        device=bench.device,
        seed=seed,
    )
    head = order.model.head
    with functions.users_code(f"The recipe {order.recipe!r}"):
        pool = architectures.pooling(trained, head)
        return Network(trained, head=head, prepare=prepare, pool=pool)


def _outputs(network: Network, samples: Samples, order: Order) -> Iterator[tuple[int, Outputs]]:
    """The network's answers on the samples, block by block, each with its first index."""
    for first in range(0, len(samples), BLOCK):
        block = samples.select(torch.arange(first, min(first + BLOCK, len(samples))))
        with functions.users_code(f"The network that {order.recipe!r} trained"):
            outputs = Outputs.of(network, block, BATCH)
        yield first, outputs


def _record(bench: Workbench, order: Order, said: Said) -> None:
    """Store both tables, and mark them complete, in one transaction."""
    training, holdout = (
        [sample_id for sample_id, _ in named] for named in (order.training, order.holdout)
    )
    for attempt in bench.transaction():
        with attempt as session:
            job = lease.hold(session, bench.claim)
            reference_tables.write(
                session,
                order.model.id,
                said.summarised,
                said.seen,
                training=training,
                holdout=holdout,
            )
            session.merge(
                ReferenceTables(
                    model_id=order.model.id, job_id=job.id, models=order.count, recipe=order.recipe
                )
            )
            trail.record(
                session, "worker", order.model.id,
                ReferencesCompleted(
                    job=job.id, models=order.count, recipe=order.recipe,
                    samples=len(training) + len(holdout), reference_models_kept=0,
                    groups=len(order.groups.unique()),  # type: ignore[no-untyped-call]
                    scores_kept=said.summarised.scores is not None,
                ),
            )  # fmt: skip
            if order.model.recipe is not None:
                timing.note(session, bench, order.model, said.took)
            jobs.complete(session, job, actor="worker")
