"""What was registered: datasets models, their versions, and what is known of them."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    REAL,
    BigInteger,
    CheckConstraint,
    DateTime,
    Enum,
    ForeignKey,
    Index,
    Integer,
    String,
    UniqueConstraint,
    Uuid,
    column,
    false,
    func,
    table,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column
from uuid_utils.compat import uuid7

from domain import sample_digests
from domain.states import (
    DerivedKind,
    Mode,
    RegistrationStatus,
    Split,
    VersionStatus,
)
from domain.tables.columns import Base, values


class Dataset(Base):
    """A labelled set of samples somewhere in Parquet, and where its columns are."""

    __tablename__ = "datasets"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid7)
    name: Mapped[str] = mapped_column(unique=True)
    uri: Mapped[str]
    definition: Mapped[dict[str, Any]]
    """Columns, split names, input shape and what to do with bad rows, as they were registered."""

    tombstone_key: Mapped[bytes] = mapped_column(default=sample_digests.new_key)
    """What the ids of forgotten samples are digested with; see `domain.sample_digests`."""

    group_key: Mapped[bytes | None] = mapped_column(default=sample_digests.new_key)
    """What groups are digested with. Another key than the ids', so that a person whose one sample
    is named like the person has two digests that nobody can link. Null where an older release
    registered the dataset while the schema was already this one: it has no groups."""

    status: Mapped[RegistrationStatus] = mapped_column(default=RegistrationStatus.PENDING)
    report: Mapped[dict[str, Any] | None]
    """What indexing found: rows, samples per split, labels per class, bad rows with examples."""

    state: Mapped[int] = mapped_column(default=1, server_default=text("1"))
    """The number of the state that is indexed; see `DatasetState`."""

    files: Mapped[dict[str, Any] | None]
    """Each file's size, time and footer as it was indexed, or as Lethe rewrote it; by its path."""

    failure: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    ready_at: Mapped[datetime | None]
    deleted_at: Mapped[datetime | None]
    """When somebody deleted it; its row stays, as the evidence names it."""

    purged_at: Mapped[datetime | None]
    """When all that was stored of it was gone, but for the evidence."""


class Sample(Base):
    """One record of a dataset, found by its id, and where it stands in the files."""

    __tablename__ = "samples"
    __table_args__ = (
        Index(
            "samples_by_group_idx",
            "dataset_id",
            "group_digest",
            postgresql_where=text("group_digest IS NOT NULL"),
        ),
    )

    dataset_id: Mapped[UUID] = mapped_column(primary_key=True)
    """Of a dataset that the job found before it stored them. Not a foreign key, for the reason in
    `RequestSample`: who deletes a dataset deletes these."""

    sample_id: Mapped[str] = mapped_column(primary_key=True)
    position: Mapped[int] = mapped_column(BigInteger)
    """Row number over all files of the dataset in the order of their names."""

    label: Mapped[int]
    split: Mapped[Split]
    since: Mapped[int] = mapped_column(default=1, server_default=text("1"))
    """The first state of the dataset that has it with this content."""

    content: Mapped[bytes | None]
    """Of its input, label and split, as `worker.data.content` digests them; null for samples that
    an older release indexed."""

    group_digest: Mapped[bytes | None]
    """Of the group it belongs to, such as a person, under the dataset's `group_key`:
    `domain.sample_digests.digest`. Null for a sample that is a group of its own."""


class Model(Base):
    """A trained classifier: how to build it, how to feed it, what data it was trained on."""

    __tablename__ = "models"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid7)
    name: Mapped[str] = mapped_column(unique=True)
    dataset_id: Mapped[UUID] = mapped_column(ForeignKey("datasets.id"), index=True)
    weights_uri: Mapped[str]
    architecture: Mapped[dict[str, Any]]
    head: Mapped[str]
    preprocessing: Mapped[dict[str, Any]]
    """As jobs use it: what was declared, once registration has completed it from the files beside
    the weights. `labels` is the model's output for each label of the dataset, where they differ."""

    declared: Mapped[dict[str, Any] | None]
    """`preprocessing`, `preprocessing_source`, `classes` and `map_classes` as they were registered;
    null for models of older releases, which have what `preprocessing` says."""

    found: Mapped[dict[str, Any] | None]
    """Where the preprocessing is from, and the names of the outputs; null until it is ready."""

    recipe: Mapped[str | None]
    """The function that trains it anew; without one it is never retrained."""

    backbone: Mapped[dict[str, Any] | None]
    """The public network that its head was trained on, as it was registered, if only its head is
    ever fitted anew; see `worker.jobs.frozen_head`."""

    policy: Mapped[dict[str, Any]]
    """As `domain.policy.Policy` dumps it."""

    expected_accuracy: Mapped[dict[str, Any] | None]
    """What its team measured, `train`, `holdout` or both, and a `tolerance`; see
    `worker.jobs.plausibility`."""

    state: Mapped[int] = mapped_column(default=1, server_default=text("1"))
    """The state of its dataset that it was trained on: it has learned from no sample that came
    later, and from those that left the dataset since."""

    near_duplicates: Mapped[dict[str, Any] | None]
    """How many training samples are nearly the same as others, as `worker.data.likeness` reports
    it; null until it is ready, and for models of older releases."""

    timings: Mapped[dict[str, Any] | None]
    """What training it takes, by device, as `domain.training_time` reads it; what a job takes is
    beside it. Null where nothing was timed, and for models of older releases."""

    accept_accuracy: Mapped[bool] = mapped_column(default=False, server_default=false())
    """Whether it is registered though it answers as no trained network does."""

    suppressed_samples: Mapped[int] = mapped_column(default=0)
    """How many samples of its dataset other models had forgotten when it was registered: it was
    trained elsewhere, perhaps on some of them."""

    status: Mapped[RegistrationStatus] = mapped_column(default=RegistrationStatus.PENDING)
    failure: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    ready_at: Mapped[datetime | None]
    deleted_at: Mapped[datetime | None]
    """When somebody deleted it; its row stays, as the evidence names it."""

    purged_at: Mapped[datetime | None]
    """When all that was stored of it was gone, but for the evidence."""


class ModelVersion(Base):
    """Immutable weights of a model, and what was computed from data with them.

    Triggers refuse that a row is deleted, that what a version is changes, that a superseded one
    changes at all but for being marked as purged, and that its weights come back in another row.
    """

    __tablename__ = "model_versions"
    __table_args__ = (
        UniqueConstraint("model_id", "number"),
        Index(
            "model_versions_one_champion_idx",
            "model_id",
            unique=True,
            postgresql_where=text("status = 'champion'"),
        ),
        CheckConstraint("(status = 'superseded') = (superseded_at IS NOT NULL)", "superseded_at"),
        CheckConstraint("status <> 'superseded' OR purge_after IS NOT NULL", "purge_after"),
        CheckConstraint("purged_at IS NULL OR status = 'superseded'", "purged_at"),
        Index(
            "model_versions_to_purge_idx",
            "purge_after",
            postgresql_where=text("status = 'superseded' AND purged_at IS NULL"),
        ),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid7)
    model_id: Mapped[UUID] = mapped_column(ForeignKey("models.id"))
    number: Mapped[int]
    status: Mapped[VersionStatus]
    mode: Mapped[Mode] = mapped_column(default=Mode.EXACT)
    """`exact` for a version that was trained without what was forgotten, version 1 included."""

    parent_id: Mapped[UUID | None] = mapped_column(ForeignKey("model_versions.id"))
    job_id: Mapped[UUID] = mapped_column(ForeignKey("jobs.id"), unique=True)
    """The job that made it. Unique: a job makes one version, however often it is tried."""

    weights_sha256: Mapped[str]
    statistics_sha256: Mapped[str]
    """Moments of the retain features and the hold-out statistics, under these weights."""

    reservoir_sha256: Mapped[str]
    """Inputs kept for jobs: a class-balanced draw of the retain set, hold-out and test samples."""

    features_sha256: Mapped[str | None]
    """What enters its head, for every training sample that stays; null unless the model's recipe
    fits nothing but the head."""

    figures: Mapped[dict[str, Any]]
    """Accuracies, feature size, sample counts and drift measured when the version was made."""

    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    superseded_at: Mapped[datetime | None]
    purge_after: Mapped[datetime | None]
    """When its files are to be deleted: a superseded version has no use, and may hold forgotten
    data."""

    purged_at: Mapped[datetime | None]
    """When they were, and the store was listed to see that they are gone."""


class ReferenceTables(Base):
    """What reference models of a model left behind; while there is no row, nothing may be read.

    Reference models are networks of the same architecture, trained on random halves of the training
    samples and discarded. Each training sample is unseen by half of them.
    """

    __tablename__ = "reference_tables"

    model_id: Mapped[UUID] = mapped_column(ForeignKey("models.id"), primary_key=True)
    job_id: Mapped[UUID] = mapped_column(ForeignKey("jobs.id"), unique=True)
    models: Mapped[int]
    """How many were trained."""

    recipe: Mapped[str]
    """The function that trained them."""

    completed_at: Mapped[datetime] = mapped_column(server_default=func.now())


class OutOfSamplePrediction(Base):
    """What models that never saw a training sample answer to it, on the average."""

    __tablename__ = "out_of_sample_predictions"

    model_id: Mapped[UUID] = mapped_column(primary_key=True)
    """Of a row in `reference_tables`. Not a foreign key, for the reason in `RequestSample`."""

    sample_id: Mapped[str] = mapped_column(primary_key=True)
    probabilities: Mapped[bytes]
    """One little-endian float16 for each class."""


class MembershipStatistics(Base):
    """How sure reference models are of a sample's class, with and without having learned from it.

    Mean and deviation of log(p / (1 - p)), where p is the probability of the true class.
    """

    __tablename__ = "membership_statistics"

    model_id: Mapped[UUID] = mapped_column(primary_key=True)
    """As in `OutOfSamplePrediction`."""

    sample_id: Mapped[str] = mapped_column(primary_key=True)
    in_mean: Mapped[float | None] = mapped_column(REAL)
    """Of the models that learned from it; null for hold-out samples, as no model did."""

    in_std: Mapped[float | None] = mapped_column(REAL)
    out_mean: Mapped[float] = mapped_column(REAL)
    out_std: Mapped[float] = mapped_column(REAL)
    scores: Mapped[bytes | None]
    """What each of the reference models says: one little-endian float32 for each, in the order in
    which they were trained. Null in rows of older releases."""

    seen_by: Mapped[int | None] = mapped_column(BigInteger)
    """Which of them learned from it: bit j for model j; the 64th bit is the sign. 0 for hold-out
    samples. Null where `scores` is."""


class NearDuplicate(Base):
    """A training or hold-out sample that is nearly the same as others, and which ones.

    Only for models whose policy takes such samples for groups.
    """

    __tablename__ = "near_duplicates"

    model_id: Mapped[UUID] = mapped_column(primary_key=True)
    """Not a foreign key, for the reason in `RequestSample`."""

    sample_id: Mapped[str] = mapped_column(primary_key=True)
    group_number: Mapped[int]
    """The same for samples that are nearly the same; it means nothing else."""


derived_data = table(
    "derived_data",
    column("model_id", Uuid),
    column("kind", Enum(DerivedKind, native_enum=False, values_callable=values)),
    column("name", String),
    column("version_id", Uuid),
    column("version", Integer),
    column("job_id", Uuid),
    column("created_at", DateTime(timezone=True)),
    column("tainted_by", ARRAY(Uuid)),
    column("purge_after", DateTime(timezone=True)),
    column("purged_at", DateTime(timezone=True)),
)
"""A view of everything that is made from data and may hold samples, or what was learned from them.

`tainted_by` are the jobs whose samples it holds though they count as forgotten, or, for the
checkpoint of a running job, will. So where a forgotten sample still lives is one query: what is
tainted by the job of its tombstone and not purged.
"""


class Tombstone(Base):
    """A sample that a model has forgotten; it is never trained on, nor kept, again."""

    __tablename__ = "tombstones"

    model_id: Mapped[UUID] = mapped_column(ForeignKey("models.id"), primary_key=True)
    digest: Mapped[bytes] = mapped_column(primary_key=True)
    """Of its id, under the key of the model's dataset: `domain.sample_digests.digest`."""

    job_id: Mapped[UUID] = mapped_column(ForeignKey("jobs.id"), index=True)
    forgotten_at: Mapped[datetime] = mapped_column(server_default=func.now())


class DatasetCheck(Base):
    """A question which rows of a Parquet file may not be trained on, and the answer.

    The file has the ids; none of them is here.
    """

    __tablename__ = "dataset_checks"
    __table_args__ = (
        CheckConstraint("num_nulls(rows, suppressed, positions) IN (0, 3)", "answered_as_a_whole"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid7)
    dataset_id: Mapped[UUID] = mapped_column(ForeignKey("datasets.id"))
    """Whose models may have forgotten samples of the file."""

    job_id: Mapped[UUID] = mapped_column(ForeignKey("jobs.id"), unique=True)
    uri: Mapped[str]
    column: Mapped[str]
    """Of the sample ids."""

    rows: Mapped[int | None] = mapped_column(BigInteger)
    suppressed: Mapped[int | None] = mapped_column(BigInteger)
    """How many of the rows."""

    positions: Mapped[list[int] | None]
    """Their row numbers, as in `Sample`; the first ones only, where they are very many."""

    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    @property
    def definition(self) -> dict[str, Any]:
        """How the file is read, as in `Dataset`: nothing of it but the ids."""
        return {"columns": {"sample_id": self.column}}
