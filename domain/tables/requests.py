"""What people asked for: deletion requests, estimates, and what was decided."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ForeignKey,
    Index,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column
from uuid_utils.compat import uuid7

from domain.states import (
    Decision,
    Objective,
    RequestStatus,
    RowsStatus,
)
from domain.tables.columns import Base


class DeletionRequest(Base):
    """A demand that samples be forgotten, by one model or by every model of a dataset.

    Its status sums up its targets'; see `DeletionTarget`.
    """

    __tablename__ = "deletion_requests"
    __table_args__ = (
        Index("deletion_requests_open_idx", "status", "due_at", postgresql_include=["created_at"]),
        Index(None, "status", "id"),
        Index(
            "deletion_requests_rows_idx",
            "dataset_id",
            "rows_status",
            postgresql_where=text("rows_status IS NOT NULL"),
        ),
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

    urgent: Mapped[bool] = mapped_column(default=False, server_default=text("false"))
    """Whether it goes into a job at once, and takes along what waits with it."""

    status: Mapped[RequestStatus] = mapped_column(default=RequestStatus.PENDING)
    subject_ref: Mapped[str | None]
    reason: Mapped[str | None]
    samples: Mapped[int]
    """How many different samples were named, by their ids or by subjects."""

    duplicates: Mapped[int]
    """How many named ids and subjects were repetitions."""

    subjects: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    """How many different subjects were named. None of them is kept, nor is its digest."""

    unknown_subjects: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    """How many of them had no sample in the dataset."""

    subject_samples: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    """How many different samples were found by them."""

    commitment: Mapped[str | None]
    """To what was named, in hexadecimal; see `evidence.commitments`. Older requests have none."""

    received_at: Mapped[datetime]
    time_zone: Mapped[str | None]
    """Of whoever asked, as `domain.due_dates.zone` takes it; null for UTC, as in older requests."""

    due_at: Mapped[datetime]
    """One month after receipt there (GDPR Article 12(3))."""

    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    finished_at: Mapped[datetime | None]
    overdue_at: Mapped[datetime | None]
    """When the due date was seen to have passed before the request was answered."""

    shredded_at: Mapped[datetime | None]
    """When its key, `subject_ref`, `reason` and the grounds of decisions were destroyed."""

    rows_status: Mapped[RowsStatus | None]
    """Of the samples' rows in the dataset's files; null while the request is open, where the
    dataset does not erase, and for requests of older releases."""

    rows_left: Mapped[int | None]
    """How many rows were left when a job last counted them."""

    rows_job_id: Mapped[UUID | None] = mapped_column(ForeignKey("jobs.id"))
    """The job that said so."""

    rows_at: Mapped[datetime | None]
    """When it did."""


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
    """One sample named by a request; it goes when the request has come to its end, and its row with
    it where the dataset erases."""

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
        Index(
            "deletion_targets_waiting_idx",
            "model_id",
            text("waits_until NULLS FIRST"),
            postgresql_where=text("status = 'pending'"),
        ),
    )

    request_id: Mapped[UUID] = mapped_column(ForeignKey("deletion_requests.id"), primary_key=True)
    model_id: Mapped[UUID] = mapped_column(ForeignKey("models.id"), primary_key=True)
    status: Mapped[RequestStatus] = mapped_column(default=RequestStatus.PENDING)
    job_id: Mapped[UUID | None] = mapped_column(ForeignKey("jobs.id"))
    waits_until: Mapped[datetime | None]
    """Until then it may be held back so that others can join it, as `domain.batching` says; null if
    not, or not any more."""

    accepted_job_id: Mapped[UUID | None] = mapped_column(ForeignKey("jobs.id"))
    """The job whose version a person accepted when it had been overtaken: while the acceptance
    stands, only a job that makes that version anew may serve this. Empty otherwise."""

    already_forgotten: Mapped[int] = mapped_column(default=0)
    """Named samples that this model had forgotten when the request came in; once it is completed,
    those it had forgotten when its own job made it forget the rest."""

    former: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    """Named samples that the model knows and that are no longer in the dataset, or with another
    content. No job can show it what to forget: while there are any, this waits for a version that
    was trained on a later state."""

    not_trained_on: Mapped[int] = mapped_column(default=0)
    """Named samples outside the training split: the model never learned from them."""


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


class Estimate(Base):
    """A question what a deletion request would meet, asked of one or more models."""

    __tablename__ = "estimates"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid7)
    dataset_id: Mapped[UUID] = mapped_column(ForeignKey("datasets.id"))
    objective: Mapped[Objective]
    exact: Mapped[bool]
    samples: Mapped[int]
    """As in `DeletionRequest`, like the counts that follow."""

    duplicates: Mapped[int]
    subjects: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    unknown_subjects: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    subject_samples: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class EstimateTarget(Base):
    """What an estimate asks of one model, and the answer."""

    __tablename__ = "estimate_targets"

    estimate_id: Mapped[UUID] = mapped_column(ForeignKey("estimates.id"), primary_key=True)
    model_id: Mapped[UUID] = mapped_column(ForeignKey("models.id"), primary_key=True)
    job_id: Mapped[UUID] = mapped_column(ForeignKey("jobs.id"), unique=True)
    already_forgotten: Mapped[int]
    not_trained_on: Mapped[int]
    former: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    """As in `DeletionTarget`, when the estimate was asked for."""

    result: Mapped[dict[str, Any] | None]


class EstimateSample(Base):
    """One sample named to an estimate; it goes when the job that needs it ends."""

    __tablename__ = "estimate_samples"

    job_id: Mapped[UUID] = mapped_column(primary_key=True)
    """Of a job stored in the same transaction. Not a foreign key, as in `RequestSample`."""

    sample_id: Mapped[str] = mapped_column(primary_key=True)


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
