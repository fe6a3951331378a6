"""What is being done, and what came of it: jobs, their rounds, tests and checkpoints."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    func,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column
from uuid_utils.compat import uuid7

from domain.policy import Escalation
from domain.states import (
    JobKind,
    JobStatus,
    Mode,
    Objective,
    Verdict,
)
from domain.tables.columns import Base


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
                "status IN ('queued', 'running') "
                "AND kind NOT IN ('estimate', 'purge', 'train_references')"
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

    accepted_job_id: Mapped[UUID | None] = mapped_column(ForeignKey("jobs.id"))
    """The job whose version a person accepted, and which this one makes anew; mostly empty."""

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


class JobCheckpoint(Base):
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


class VerdictTest(Base):
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
