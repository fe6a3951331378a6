"""The tables. Rows hold the truth; how they may change is in `states.py`.

Not `models.py`: here a *model* is a neural network, always.
"""

from datetime import datetime
from enum import StrEnum
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
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    MetaData,
    String,
    UniqueConstraint,
    Uuid,
    column,
    func,
    table,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from uuid_utils.compat import uuid7

from domain import sample_digests
from domain.policy import Escalation
from domain.states import (
    Decision,
    DeliveryFailure,
    DeliveryStatus,
    DerivedKind,
    JobKind,
    JobStatus,
    Mode,
    Objective,
    RegistrationStatus,
    RequestStatus,
    Split,
    Verdict,
    VersionStatus,
    WebhookStatus,
)


def _enum(kind: type[StrEnum], name: str) -> Enum:
    """A text column that a CHECK holds to the values of `kind`."""
    return Enum(
        kind,
        native_enum=False,
        length=24,
        create_constraint=True,
        name=name,
        values_callable=_values,
    )


def _values(kind: type[StrEnum]) -> list[str]:
    return [member.value for member in kind]


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "pk": "%(table_name)s_pkey",
            "fk": "%(table_name)s_%(column_0_name)s_fkey",
            "uq": "%(table_name)s_%(column_0_N_name)s_key",
            "ck": "%(table_name)s_%(constraint_name)s_check",
            "ix": "%(table_name)s_%(column_0_N_name)s_idx",
        }
    )
    type_annotation_map = {  # noqa: RUF012 (SQLAlchemy reads it from the class)
        datetime: DateTime(timezone=True),
        dict[str, Any]: JSONB(none_as_null=True),
        list[int]: JSONB(none_as_null=True),
        list[str]: ARRAY(String),
        str: String,
        RegistrationStatus: _enum(RegistrationStatus, "status"),
        RequestStatus: _enum(RequestStatus, "status"),
        JobStatus: _enum(JobStatus, "status"),
        JobKind: _enum(JobKind, "kind"),
        VersionStatus: _enum(VersionStatus, "status"),
        Objective: _enum(Objective, "objective"),
        Split: _enum(Split, "split"),
        Mode: _enum(Mode, "mode"),
        Verdict: _enum(Verdict, "verdict"),
        Escalation: _enum(Escalation, "step"),
        Decision: _enum(Decision, "decision"),
        WebhookStatus: _enum(WebhookStatus, "status"),
        DeliveryStatus: _enum(DeliveryStatus, "status"),
        DeliveryFailure: _enum(DeliveryFailure, "failure"),
    }


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

    status: Mapped[RegistrationStatus] = mapped_column(default=RegistrationStatus.PENDING)
    report: Mapped[dict[str, Any] | None]
    """What indexing found: rows, samples per split, labels per class, bad rows with examples."""

    files: Mapped[dict[str, Any] | None]
    """Each file's size, time and footer as it was indexed, or as Lethe rewrote it; by its path."""

    failure: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    ready_at: Mapped[datetime | None]


class Sample(Base):
    """One record of a dataset, found by its id, and where it stands in the files."""

    __tablename__ = "samples"

    dataset_id: Mapped[UUID] = mapped_column(ForeignKey("datasets.id"), primary_key=True)
    sample_id: Mapped[str] = mapped_column(primary_key=True)
    position: Mapped[int] = mapped_column(BigInteger)
    """Row number over all files of the dataset in the order of their names."""

    label: Mapped[int]
    split: Mapped[Split]


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
    recipe: Mapped[str | None]
    """The function that trains it anew; without one it is never retrained."""

    policy: Mapped[dict[str, Any]]
    """As `domain.policy.Policy` dumps it."""

    suppressed_samples: Mapped[int] = mapped_column(default=0)
    """How many samples of its dataset other models had forgotten when it was registered: it was
    trained elsewhere, perhaps on some of them."""

    status: Mapped[RegistrationStatus] = mapped_column(default=RegistrationStatus.PENDING)
    failure: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    ready_at: Mapped[datetime | None]


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

    figures: Mapped[dict[str, Any]]
    """Accuracies, feature size, sample counts and drift measured when the version was made."""

    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    superseded_at: Mapped[datetime | None]
    purge_after: Mapped[datetime | None]
    """When its files are to be deleted: a superseded version has no use, and may hold forgotten
    data."""

    purged_at: Mapped[datetime | None]
    """When they were, and the store was listed to see that they are gone."""


class DeletionRequest(Base):
    """A demand that samples be forgotten, by one model or by every model of a dataset.

    Its status sums up its targets'; see `DeletionTarget`.
    """

    __tablename__ = "deletion_requests"
    __table_args__ = (
        Index("deletion_requests_open_idx", "status", "due_at", postgresql_include=["created_at"]),
        Index(None, "status", "id"),
        Index(
            "deletion_requests_linked_idx",
            "finished_at",
            postgresql_where=text("shredded_at IS NULL AND finished_at IS NOT NULL"),
        ),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid7)
    dataset_id: Mapped[UUID] = mapped_column(ForeignKey("datasets.id"))
    objective: Mapped[Objective]
    exact: Mapped[bool] = mapped_column(default=False)
    """Whether nothing but a training without the samples will do."""

    status: Mapped[RequestStatus] = mapped_column(default=RequestStatus.PENDING)
    subject_ref: Mapped[str | None]
    reason: Mapped[str | None]
    samples: Mapped[int]
    """How many different ids were named."""

    duplicates: Mapped[int]
    """How many named ids were repetitions."""

    commitment: Mapped[str | None]
    """To the named ids, in hexadecimal; see `evidence.commitments`. Older requests have none."""

    received_at: Mapped[datetime]
    due_at: Mapped[datetime]
    """One month after receipt (GDPR Article 12(3))."""

    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    finished_at: Mapped[datetime | None]
    overdue_at: Mapped[datetime | None]
    """When the due date was seen to have passed before the request was answered."""

    shredded_at: Mapped[datetime | None]
    """When its key, `subject_ref`, `reason` and the grounds of decisions were destroyed."""


class RequestKey(Base):
    """What links a request to the ids it named, once they are gone; destroyed when it is shredded.

    The audit trail has the commitment, and digests under this key: without it they say nothing.
    """

    __tablename__ = "request_keys"

    request_id: Mapped[UUID] = mapped_column(ForeignKey("deletion_requests.id"), primary_key=True)
    key: Mapped[bytes]
    entries: Mapped[bytes]
    """The entries of the commitment, 32 bytes each, in their order."""


class RequestSample(Base):
    """One sample named by a request; it goes when the request has come to its end."""

    __tablename__ = "request_samples"

    request_id: Mapped[UUID] = mapped_column(primary_key=True)
    """Of a request stored in the same transaction. Not a foreign key: checking that for each of
    100,000 rows takes as long as all the rest of storing them."""

    sample_id: Mapped[str] = mapped_column(primary_key=True)


class DeletionTarget(Base):
    """What one request asks of one model, and how far that is."""

    __tablename__ = "deletion_targets"
    __table_args__ = (
        Index(None, "job_id"),
        Index(None, "model_id", "status"),
        Index(None, "model_id", "request_id"),
    )

    request_id: Mapped[UUID] = mapped_column(ForeignKey("deletion_requests.id"), primary_key=True)
    model_id: Mapped[UUID] = mapped_column(ForeignKey("models.id"), primary_key=True)
    status: Mapped[RequestStatus] = mapped_column(default=RequestStatus.PENDING)
    job_id: Mapped[UUID | None] = mapped_column(ForeignKey("jobs.id"))
    already_forgotten: Mapped[int] = mapped_column(default=0)
    """Named samples this model had forgotten before, when the request came in."""

    not_trained_on: Mapped[int] = mapped_column(default=0)
    """Named samples outside the training split: the model never learned from them."""


class Tombstone(Base):
    """A sample that a model has forgotten; it is never trained on, nor kept, again."""

    __tablename__ = "tombstones"

    model_id: Mapped[UUID] = mapped_column(ForeignKey("models.id"), primary_key=True)
    digest: Mapped[bytes] = mapped_column(primary_key=True)
    """Of its id, under the key of the model's dataset: `domain.sample_digests.digest`."""

    job_id: Mapped[UUID] = mapped_column(ForeignKey("jobs.id"), index=True)
    forgotten_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Job(Base):
    """One piece of work for the worker, and who has it.

    `attempt` is the fencing number: a worker may write only under the attempt it claimed.
    """

    __tablename__ = "jobs"
    __table_args__ = (
        Index(
            "jobs_one_open_per_model_idx",
            "model_id",
            unique=True,
            postgresql_where=text(
                "status IN ('queued', 'running') AND kind NOT IN ('estimate', 'purge')"
            ),
        ),
        Index(
            "jobs_forgotten_idx",
            "model_id",
            "forgotten_at",
            postgresql_where=text("forgotten_at IS NOT NULL"),
        ),
        Index("jobs_open_idx", "status", postgresql_where=text("status IN ('queued', 'running')")),
        CheckConstraint("(status = 'running') = (lease_until IS NOT NULL)", "lease_iff_running"),
        CheckConstraint("(status = 'failed') = (failure IS NOT NULL)", "failure_iff_failed"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid7)
    kind: Mapped[JobKind]
    dataset_id: Mapped[UUID | None] = mapped_column(ForeignKey("datasets.id"))
    model_id: Mapped[UUID | None] = mapped_column(ForeignKey("models.id"), index=True)
    status: Mapped[JobStatus] = mapped_column(default=JobStatus.QUEUED)
    attempt: Mapped[int] = mapped_column(default=0)
    losses: Mapped[int] = mapped_column(default=0)
    """How often an attempt was lost; too often, and the job fails."""

    not_before: Mapped[datetime | None]
    """Until then nobody takes it: the last attempt found the machine at fault."""

    worker: Mapped[str | None]
    lease_until: Mapped[datetime | None]
    phase: Mapped[str | None]
    """What the job is doing now, for people."""

    progress: Mapped[float] = mapped_column(default=0.0)
    """Share of the work that is done, 0 to 1."""

    objective: Mapped[Objective | None]
    config: Mapped[dict[str, Any] | None]
    """The full configuration of the method, as it ran, the seed included."""

    environment: Mapped[dict[str, Any] | None]
    """Code version, library versions and device it ran with."""

    base_version_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("model_versions.id", use_alter=True)
    )
    mode: Mapped[Mode | None]
    """How the job makes its version; empty until that is decided."""

    mode_reason: Mapped[str | None]
    """Why so, for people."""

    verdict: Mapped[Verdict | None]
    """What the audit said of the version it made; empty while there is none."""

    failure: Mapped[dict[str, Any] | None]
    """A `kind` (`input`, `method`, `memory`, `bug`, `worker_lost`, `storage`, `database`,
    `time_limit`) and a `reason`."""

    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    forgotten_at: Mapped[datetime | None]
    """From when on what it was to make forgotten counts as forgotten; empty where it had nothing to
    forget, and until a person accepts the version it made."""


class Checkpoint(Base):
    """The last cycle of a round that is safe in a file, for the next attempt to go on from.

    The file holds a model that knows the forget set: it is deleted when the job ends, and only
    then the row, with an audit event.
    """

    __tablename__ = "checkpoints"

    job_id: Mapped[UUID] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    round: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    attempt: Mapped[int]
    cycle: Mapped[int]
    name: Mapped[str]
    """Of the file, in the job's directory."""

    sha256: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class _Scores:
    """How forget and hold-out samples look to a model. Accuracies and alignments are in [0, 1]."""

    forget_accuracy: Mapped[float]
    retain_accuracy: Mapped[float]
    holdout_accuracy: Mapped[float | None]
    da_forget: Mapped[float]
    da_holdout: Mapped[float | None]
    da_gap: Mapped[float | None]
    da_gap_low: Mapped[float | None]
    da_gap_high: Mapped[float | None]


class AlignmentScore(_Scores, Base):
    """The alignment scores, losses and accuracies after one cycle of a job."""

    __tablename__ = "alignment_scores"

    job_id: Mapped[UUID] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    round: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    cycle: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    attempt: Mapped[int]
    loss_alignment: Mapped[float]
    loss_distillation: Mapped[float]
    loss_retain: Mapped[float]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Evaluation(_Scores, Base):
    """Everything measured before or after a job."""

    __tablename__ = "evaluations"
    __table_args__ = (CheckConstraint("moment IN ('before', 'after')", "moment"),)

    job_id: Mapped[UUID] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    moment: Mapped[str] = mapped_column(primary_key=True)
    figures: Mapped[dict[str, Any]]
    """The remaining figures, by name, with k and the numbers of samples they rest on."""

    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Round(Base):
    """One try of a job at a version, and what the audit said of it.

    The tests are a family with one error rate, `alpha`; their p-values come from `permutations`
    permutations, drawn with `seed`. All three are empty where the round broke off: then there was
    nothing to audit, the verdict is `fail`, and the reason says why.
    """

    __tablename__ = "rounds"
    __table_args__ = (CheckConstraint("(number = 1) = (step IS NULL)", "first_has_no_step"),)

    job_id: Mapped[UUID] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    """From 1; each that follows comes after a `fail`."""

    step: Mapped[Escalation | None]
    """What was tried because the round before failed."""

    mode: Mapped[Mode]
    config: Mapped[dict[str, Any]]
    verdict: Mapped[Verdict]
    reason: Mapped[str]
    alpha: Mapped[float | None]
    permutations: Mapped[int | None]
    seed: Mapped[int | None] = mapped_column(BigInteger)
    kept: Mapped[bool] = mapped_column(default=False)
    """Whether the job's version comes from this round."""

    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class TestResult(Base):
    """One test of one round: its value, its interval and what it was held against."""

    __tablename__ = "audit_tests"
    __table_args__ = (
        ForeignKeyConstraint(["job_id", "round"], ["rounds.job_id", "rounds.number"]),
        CheckConstraint("moment IN ('before', 'after', 'guard')", "moment"),
    )

    job_id: Mapped[UUID] = mapped_column(primary_key=True)
    round: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    moment: Mapped[str] = mapped_column(primary_key=True)
    """`before` and `after`: the family on the champion and on the new version. `guard`: what the
    new version must have kept."""

    name: Mapped[str] = mapped_column(primary_key=True)
    position: Mapped[int]
    """Its place in the order of the audit."""

    value: Mapped[float]
    low: Mapped[float | None]
    high: Mapped[float | None]
    expected: Mapped[float | None]
    threshold: Mapped[float | None]
    p_value: Mapped[float | None]
    forget_samples: Mapped[int]
    holdout_samples: Mapped[int]
    passed: Mapped[bool]


class ReviewDecision(Base):
    """What a person decided about a request whose job could not get a better verdict."""

    __tablename__ = "decisions"
    __table_args__ = (Index(None, "request_id"),)

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid7)
    request_id: Mapped[UUID] = mapped_column(ForeignKey("deletion_requests.id"))
    job_id: Mapped[UUID] = mapped_column(ForeignKey("jobs.id"))
    """The job whose outcome it is about."""

    decision: Mapped[Decision]
    ground: Mapped[str | None]
    """Null once the request is shredded."""

    decided_by: Mapped[str]
    decided_at: Mapped[datetime] = mapped_column(server_default=func.now())


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


derived_data = table(
    "derived_data",
    column("model_id", Uuid),
    column("kind", Enum(DerivedKind, native_enum=False, values_callable=_values)),
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


class Estimate(Base):
    """A question what a deletion request would meet, asked of one or more models."""

    __tablename__ = "estimates"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid7)
    dataset_id: Mapped[UUID] = mapped_column(ForeignKey("datasets.id"))
    objective: Mapped[Objective]
    exact: Mapped[bool]
    samples: Mapped[int]
    """How many different ids were named."""

    duplicates: Mapped[int]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class EstimateTarget(Base):
    """What an estimate asks of one model, and the answer."""

    __tablename__ = "estimate_targets"

    estimate_id: Mapped[UUID] = mapped_column(ForeignKey("estimates.id"), primary_key=True)
    model_id: Mapped[UUID] = mapped_column(ForeignKey("models.id"), primary_key=True)
    job_id: Mapped[UUID] = mapped_column(ForeignKey("jobs.id"), unique=True)
    already_forgotten: Mapped[int]
    not_trained_on: Mapped[int]
    result: Mapped[dict[str, Any] | None]


class EstimateSample(Base):
    """One sample named to an estimate; it goes when the job that needs it ends."""

    __tablename__ = "estimate_samples"

    job_id: Mapped[UUID] = mapped_column(primary_key=True)
    """Of a job stored in the same transaction. Not a foreign key, as in `RequestSample`."""

    sample_id: Mapped[str] = mapped_column(primary_key=True)


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


class AuditEvent(Base):
    """One state change, told once, in the transaction that made it.

    A trigger refuses UPDATE, DELETE and TRUNCATE, and the service's role has no right to them.
    `data` holds ids of rows, counts and digests, never a sample id.
    """

    __tablename__ = "audit_events"
    __table_args__ = (Index(None, "subject_id"),)

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    actor: Mapped[str]
    """`api` or `worker`."""

    event: Mapped[str]
    """What happened, as `subject.past_participle`."""

    subject_id: Mapped[UUID]
    data: Mapped[dict[str, Any]]


class LogLeaf(Base):
    """The place of an event in the log: from 0, without gaps, in the order of commits.

    A trigger gives it, at the end of the event's transaction.
    """

    __tablename__ = "audit_leaves"

    position: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    event_id: Mapped[int] = mapped_column(ForeignKey("audit_events.id"), unique=True)


class LogNode(Base):
    """A complete subtree of the Merkle tree over the log; `evidence.merkle` says which."""

    __tablename__ = "audit_nodes"

    level: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    index: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    hash: Mapped[bytes]


class LogCheckpoint(Base):
    """How long the log was at a moment and what was in it, signed."""

    __tablename__ = "audit_checkpoints"

    size: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    note: Mapped[str]
    """A signed note, as `evidence.signed_notes` writes it."""

    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class LogAnchor(Base):
    """A checkpoint that was put somewhere outside this database."""

    __tablename__ = "audit_anchors"
    __table_args__ = (CheckConstraint("kind IN ('directory', 'webhook', 'rfc3161')", "kind"),)

    size: Mapped[int] = mapped_column(ForeignKey("audit_checkpoints.size"), primary_key=True)
    kind: Mapped[str] = mapped_column(primary_key=True)
    receipt: Mapped[bytes | None]
    """What came back: the token of a time-stamp authority."""

    anchored_at: Mapped[datetime] = mapped_column(server_default=func.now())


class CertifiedCheckpoint(Base):
    """A checkpoint for which all certificates were issued that it is the first to allow."""

    __tablename__ = "certified_checkpoints"

    size: Mapped[int] = mapped_column(ForeignKey("audit_checkpoints.size"), primary_key=True)


class SigningKey(Base):
    """A key that signs checkpoints, from when it did so first: its public half."""

    __tablename__ = "signing_keys"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid7)
    name: Mapped[str]
    public_key: Mapped[bytes] = mapped_column(unique=True)
    """Ed25519, 32 bytes."""

    introduced_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Certificate(Base):
    """What was certified of a completed request, numbered from 1.

    A further one follows when there is more to say, such as that old weights were deleted. A
    trigger refuses UPDATE and DELETE.
    """

    __tablename__ = "certificates"

    request_id: Mapped[UUID] = mapped_column(ForeignKey("deletion_requests.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    envelope: Mapped[str]
    """The signed statement, as it is served: JSON, a DSSE envelope."""

    payload_sha256: Mapped[str]
    """Of the bytes that were signed; the audit trail names it too."""

    issued_at: Mapped[datetime] = mapped_column(server_default=func.now())


class IdempotencyKey(Base):
    """What an `Idempotency-Key` stands for: a request, and what of its first answer changes later.

    The answer is made of both whenever the key is sent again.
    """

    __tablename__ = "idempotency_keys"

    key: Mapped[str] = mapped_column(primary_key=True)
    fingerprint: Mapped[str]
    """SHA-256 of the canonical body."""

    request_id: Mapped[UUID] = mapped_column(ForeignKey("deletion_requests.id"))
    asked: Mapped[list[Any]] = mapped_column(JSONB(none_as_null=True))
    """For each model that is to forget: its name, how many of the samples it had forgotten, and how
    many it was not trained on."""

    created_at: Mapped[datetime] = mapped_column(server_default=func.now(), index=True)


class WebhookEndpoint(Base):
    """Where to tell what becomes of deletion requests, and the secret that signs it."""

    __tablename__ = "webhook_endpoints"
    __table_args__ = (
        CheckConstraint(
            "(status = 'disabled') = (disabled_reason IS NOT NULL)", "reason_iff_disabled"
        ),
        CheckConstraint(
            "(previous_secret IS NULL) = (previous_secret_until IS NULL)", "previous_secret"
        ),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid7)
    url: Mapped[str] = mapped_column(unique=True)
    """Never logged: it may hold a secret of the receiver."""

    description: Mapped[str | None]
    events: Mapped[list[str] | None]
    """Values of `domain.states.Event`; empty for every event, those to come included."""

    status: Mapped[WebhookStatus] = mapped_column(default=WebhookStatus.ENABLED)
    disabled_reason: Mapped[str | None]
    secret: Mapped[str]
    previous_secret: Mapped[str | None]
    """It signs too until `previous_secret_until`, so that receivers can change over."""

    previous_secret_until: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class WebhookDelivery(Base):
    """One event for one endpoint; written in the transaction of the state it reports.

    `attempt` is the fencing number, as in `Job`: an outcome may be stored only for the attempt
    that was claimed.
    """

    __tablename__ = "webhook_deliveries"
    __table_args__ = (
        Index(
            "webhook_deliveries_due_idx",
            "endpoint_id",
            "next_attempt_at",
            postgresql_where=text("status = 'waiting'"),
        ),
        Index(
            "webhook_deliveries_finished_idx",
            "status",
            "finished_at",
            postgresql_where=text("status <> 'waiting'"),
        ),
        Index(None, "endpoint_id", "id"),
        CheckConstraint("(status = 'waiting') = (finished_at IS NULL)", "finished_at"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid7)
    """Its `webhook-id`, and the id of the CloudEvent."""

    endpoint_id: Mapped[UUID] = mapped_column(
        ForeignKey("webhook_endpoints.id", ondelete="CASCADE")
    )
    event: Mapped[str]
    """The type of the CloudEvent."""

    body: Mapped[str]
    """As it is sent, at every attempt."""

    status: Mapped[DeliveryStatus] = mapped_column(default=DeliveryStatus.WAITING)
    attempt: Mapped[int] = mapped_column(default=0)
    next_attempt_at: Mapped[datetime] = mapped_column(server_default=func.now())
    """While it is being sent: when its sender is taken for dead."""

    response_status: Mapped[int | None]
    """Of the last attempt that was answered."""

    failure: Mapped[DeliveryFailure | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    finished_at: Mapped[datetime | None]
