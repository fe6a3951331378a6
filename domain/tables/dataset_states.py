"""States of datasets: what came and went, and what left while models still knew it."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, UniqueConstraint, func
from sqlalchemy.orm import Mapped, mapped_column
from uuid_utils.compat import uuid7

from domain.states import RegistrationStatus
from domain.tables.columns import Base


class DatasetState(Base):
    """A state of a dataset that was registered after the first one, and what is different in it."""

    __tablename__ = "dataset_states"
    __table_args__ = (
        UniqueConstraint("dataset_id", "idempotency_key"),
        UniqueConstraint("dataset_id", "number"),
        CheckConstraint("(status = 'failed') = (failure IS NOT NULL)", "failure_iff_failed"),
        CheckConstraint("(status = 'ready') = (number IS NOT NULL)", "number_iff_ready"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid7)
    dataset_id: Mapped[UUID] = mapped_column(ForeignKey("datasets.id"))
    job_id: Mapped[UUID] = mapped_column(ForeignKey("jobs.id"), unique=True)
    idempotency_key: Mapped[str]
    """What it was sent with; it stands for this state for good."""

    fingerprint: Mapped[str]
    """SHA-256 of the canonical body."""

    uri: Mapped[str]
    refuse_suppressed: Mapped[bool]
    """Whether it is refused if samples come back that may not be trained on."""

    status: Mapped[RegistrationStatus] = mapped_column(default=RegistrationStatus.PENDING)
    number: Mapped[int | None]
    """From 2; null until it is ready."""

    found: Mapped[dict[str, Any] | None]
    """How many samples came, went, changed and stayed; null until it is ready."""

    failure: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    ready_at: Mapped[datetime | None]


class FormerSample(Base):
    """A training sample that left its dataset, or whose content changed, while a model that had
    learned from it was there. Rows go when no model is left that was trained before."""

    __tablename__ = "former_samples"

    dataset_id: Mapped[UUID] = mapped_column(ForeignKey("datasets.id"), primary_key=True)
    sample_id: Mapped[str] = mapped_column(primary_key=True)
    since: Mapped[int]
    """As in `Sample`."""

    removed_in: Mapped[int]
    """The first state that lacks it. If that happened several times, the last one."""

    content: Mapped[bytes | None]
    """As in `Sample`, so that it is recognised if it comes back as it was; null if it left several
    times, or is not known."""

    group_digest: Mapped[bytes | None]
    """As in `Sample`."""
