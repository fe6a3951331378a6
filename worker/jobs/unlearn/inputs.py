"""What a job must make the model forget, and the samples it works on.

Shapes: C classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

import pyarrow as pa
import torch
from sqlalchemy import ColumnElement, Select, exists, select
from sqlalchemy.orm import Session
from torch import Tensor

from domain import tombstones
from domain.errors import JobError
from domain.policy import Policy
from domain.states import Objective, Split, VersionStatus
from domain.tables import (
    Dataset,
    DeletionRequest,
    DeletionTarget,
    Job,
    Model,
    ModelVersion,
    RequestSample,
    Sample,
)
from worker.data import decode, groups, kept_answers, reservoir, unseen
from worker.data.kept_answers import Maker
from worker.data.parquet import Source
from worker.data.source import open_source
from worker.engine.workbench import Workbench
from worker.unlearning.audit.groups import Groups
from worker.unlearning.evaluation import NOTHING_KNOWN, Observed, Outputs
from worker.unlearning.network import Network
from worker.unlearning.samples import Samples

BATCH = 256


@dataclass(frozen=True, slots=True)
class Order:
    """What the job is to do, read once."""

    job: Job
    model: Model
    policy: Policy
    dataset: Dataset
    champion: ModelVersion
    exact_asked: bool
    """Whether a request accepts only a retraining without its samples."""

    forget: Sequence[tuple[str, int]]
    """Ids and positions of the training samples to forget, ordered by position."""

    outside: frozenset[str]
    """Named ids that the model has not learned from, outside the training split or later than its
    training: nothing to unlearn, but not to be kept either."""

    @property
    def forget_ids(self) -> list[str]:
        return [sample_id for sample_id, _ in self.forget]

    @property
    def removing(self) -> bool:
        """Whether the classes of the forget set are removed as a concept."""
        return self.job.objective is Objective.REMOVE_CLASS


@dataclass(frozen=True, slots=True)
class Inputs:
    """Everything the method works on and is judged by."""

    forget: Samples
    retain: Samples
    calibration: Samples
    """The half of the hold-out that the method may look at."""

    calibration_ids: Sequence[str]

    audit: Samples
    """The half that only measures the result. Empty when the hold-out of a dataset with groups has
    no two that the model never saw."""

    audit_ids: Sequence[str]
    groups: Groups | None
    """Which forget and which audit samples belong together; None if each is on its own."""

    remarks: Sequence[str]
    """What a reader of the verdict must know of the hold-out."""

    test: Samples | None
    class_counts: Tensor
    """(C,) training samples of each class that stay."""

    kept: pa.Table
    """The reservoir without the samples to forget."""

    source: Source
    """The dataset's files, opened."""

    def rows(self) -> dict[str, pa.Table]:
        """The rows of the reservoir with the samples that a network is judged by, by what
        `Observed` calls them."""
        return {
            "retain": reservoir.of_split(self.kept, Split.TRAIN),
            "holdout": reservoir.only(self.kept, self.audit_ids),
            "test": reservoir.of_split(self.kept, Split.TEST),
        }

    def kept_of(self, champion: Maker) -> dict[str, Outputs]:
        """The champion's outputs on these, as far as they were kept."""
        labels = {"retain": self.retain.labels, "holdout": self.audit.labels}
        if self.test is not None:
            labels["test"] = self.test.labels
        rows = self.rows()
        found = {
            name: kept_answers.of_rows(rows[name], each, champion) for name, each in labels.items()
        }
        return {name: outputs for name, outputs in found.items() if outputs is not None}

    def shown_to(self, network: Network, known: Mapping[str, Outputs] = NOTHING_KNOWN) -> Observed:
        """The network's outputs on everything it is judged by.

        Args:
            known: those that need not be made again, as by `known_of`.
        """
        return Observed.of(
            network,
            forget=self.forget,
            retain=self.retain,
            holdout=self.audit,
            test=self.test,
            batch_size=BATCH,
            known=known,
        )


def read_order(session: Session, job_id: UUID) -> Order:
    """The order of a job: what its requests name and the model has not forgotten yet."""
    job = session.get_one(Job, job_id)
    served = (DeletionTarget.job_id == job.id) & (DeletionTarget.model_id == job.model_id)
    named = (
        select(RequestSample.sample_id)
        .join(DeletionTarget, DeletionTarget.request_id == RequestSample.request_id)
        .where(served)
    )
    exact = exists().where(
        DeletionRequest.id == DeletionTarget.request_id, served, DeletionRequest.exact
    )
    return order_of(session, job, named, exact_asked=bool(session.scalar(select(exact))))


def order_of(session: Session, job: Job, named: Select[str], *, exact_asked: bool) -> Order:
    """The same for a job about the samples whose ids `named` selects.

    Raises:
        JobError: the champion is a version that was superseded.
    """
    model = session.get_one(Model, job.model_id)
    champion = session.scalars(
        select(ModelVersion).filter_by(model_id=model.id, status=VersionStatus.CHAMPION)
    ).one()
    _require_never_superseded(session, champion)
    rows = session.execute(
        select(Sample.sample_id, Sample.position, learned(model).label("learned"))
        .where(
            Sample.dataset_id == model.dataset_id,
            Sample.sample_id.in_(named),
            ~tombstones.has(model.id, Sample.sample_id),
        )
        .order_by(Sample.position)
    ).all()
    return Order(
        job,
        model,
        Policy.model_validate(model.policy),
        session.get_one(Dataset, model.dataset_id),
        champion,
        exact_asked,
        [(row.sample_id, row.position) for row in rows if row.learned],
        frozenset(row.sample_id for row in rows if not row.learned),
    )


def learned(model: Model) -> ColumnElement[bool]:
    """The condition on a sample of its dataset that the model was trained on it, as it is."""
    return (Sample.split == Split.TRAIN) & (Sample.since <= model.state)


def _require_never_superseded(session: Session, champion: ModelVersion) -> None:
    """Refuse weights that hold forgotten samples, even if someone edited the rows.

    Raises:
        JobError: the weights are those of a superseded version.
    """
    old = exists().where(
        ModelVersion.model_id == champion.model_id,
        ModelVersion.weights_sha256 == champion.weights_sha256,
        ModelVersion.id != champion.id,
        ModelVersion.status == VersionStatus.SUPERSEDED,
    )
    back = champion.superseded_at is not None or champion.purge_after is not None
    if back or session.scalar(select(old)):
        raise JobError(
            f"Version {champion.number} is marked as the champion, but it was superseded and holds "
            "forgotten samples. The table model_versions was changed by hand; restore its rows "
            "from the audit events."
        )


def read_inputs(bench: Workbench, order: Order, class_counts: Tensor) -> Inputs:
    """The forget set from the dataset, the rest from the champion's reservoir.

    Args:
        class_counts: (C,) training samples that the champion has not forgotten.

    Raises:
        JobError: a file has changed, nothing would be left to keep or to calibrate with, or some
            samples of a class to remove are not named.
    """
    preprocessing, definition = order.model.preprocessing, order.dataset.definition
    source = open_source(bench, order.dataset)
    forget = decode.fetch(source, order.forget, preprocessing)
    kept = reservoir.without(
        reservoir.read(bench.store, order.champion.reservoir_sha256),
        set(order.forget_ids) | order.outside,
    )
    halves, together = _halves(bench, order, kept)
    retain, test = (
        reservoir.samples(kept, split, preprocessing, definition)
        for split in (Split.TRAIN, Split.TEST)
    )
    calibration, audit = (reservoir.decoded(half, preprocessing, definition) for half in halves)
    by_group = unseen.GROUP in kept.column_names  # then the audit says that it has nobody
    if not len(retain) or not len(calibration) or not (len(audit) or by_group):
        raise JobError(
            "Without these samples, no retain samples or fewer than two hold-out samples are left, "
            "so the job cannot calibrate or judge anything. Train a new model without them instead."
        )
    class_counts = class_counts - forget.labels.bincount(minlength=len(class_counts))
    if order.removing and class_counts[forget.labels].any():
        raise JobError(
            "remove_class needs every training sample of the classes it names; some are missing. "
            "Name them all, or ask for untrain_samples."
        )
    return Inputs(
        forget,
        retain,
        calibration,
        halves[0]["sample_id"].to_pylist(),
        audit,
        halves[1]["sample_id"].to_pylist(),
        together,
        unseen.remarks(
            order.dataset.report, audited=len(audit), leaking=reservoir.leaking(halves[0])
        ),
        test if len(test) else None,
        class_counts,
        kept,
        source,
    )


def _halves(
    bench: Workbench, order: Order, kept: pa.Table
) -> tuple[tuple[pa.Table, pa.Table], Groups | None]:
    """The hold-out for calibration and for the audit, and who belongs together in the latter and
    the forget set. Samples of those who are to be forgotten are in neither half."""
    halves = reservoir.holdout_halves(kept)
    ids = [order.forget_ids, *(half["sample_id"].to_pylist() for half in halves)]
    for attempt in bench.transaction():
        with attempt as session:
            found = groups.codes(session, order.model, [each for part in ids for each in part])
            in_part = groups.in_part(
                session,
                order.model,
                order.forget_ids,
                leaving=order.outside.union(order.forget_ids),
            )
    forget, *sides = torch.split(found, [len(part) for part in ids])
    others = [~torch.isin(side, forget) for side in sides]
    calibration, audit = (
        half.filter(pa.array(other.tolist(), pa.bool_()))
        for half, other in zip(halves, others, strict=True)
    )
    if order.removing:  # nothing that stays tells of a class that leaves
        in_part = torch.zeros_like(in_part)
    together = Groups(forget=forget, holdout=sides[1][others[1]], in_part=in_part)
    alone = together.single and bool(together.whole.all())
    return (calibration, audit), None if alone else together


def read_remaining(bench: Workbench, order: Order) -> Samples:
    """Every training sample that stays, decoded: the data for a retraining.

    Raises:
        JobError: the dataset changed since it was indexed.
    """
    for attempt in bench.transaction():
        with attempt as session:
            rows = session.execute(
                select(Sample.sample_id, Sample.position)
                .where(
                    Sample.dataset_id == order.model.dataset_id,
                    learned(order.model),
                    ~tombstones.has(order.model.id, Sample.sample_id),
                )
                .order_by(Sample.position)
            ).all()
    leaving = set(order.forget_ids)
    staying = [(sample_id, position) for sample_id, position in rows if sample_id not in leaving]
    source = open_source(bench, order.dataset)
    return decode.fetch(source, staying, order.model.preprocessing)
