"""Versions of models that were trained elsewhere: what was offered, and what came of it."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, UniqueConstraint, func
from sqlalchemy.orm import Mapped, mapped_column
from uuid_utils.compat import uuid7

from domain.states import RegistrationStatus
from domain.tables.columns import Base


class VersionRegistration(Base):
    """Weights of a model's architecture that somebody trained, and what they were trained on.

    A model has one open registration at most: its job is one of those of which there is only one.
    """

    __tablename__ = "version_registrations"
    __table_args__ = (
        UniqueConstraint("model_id", "idempotency_key"),
        CheckConstraint("(status = 'failed') = (failure IS NOT NULL)", "failure_iff_failed"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid7)
    model_id: Mapped[UUID] = mapped_column(ForeignKey("models.id"))
    job_id: Mapped[UUID] = mapped_column(ForeignKey("jobs.id"), unique=True)
    idempotency_key: Mapped[str]
    """What it was sent with; it stands for this registration for good."""

    fingerprint: Mapped[str]
    """SHA-256 of the canonical body."""

    weights_uri: Mapped[str]
    trained_on: Mapped[dict[str, Any]]
    """What was declared: a file with the ids of the training samples (`uri`, `column`), or when
    the dataset's training split was read (`split_read_at`)."""

    expected_accuracy: Mapped[dict[str, Any] | None]
    """As in `Model`, like the next one."""

    accept_accuracy: Mapped[bool]
    accept_memory: Mapped[bool]
    """Whether it is registered though it can tell what the model has forgotten."""

    status: Mapped[RegistrationStatus] = mapped_column(default=RegistrationStatus.PENDING)
    found: Mapped[dict[str, Any] | None]
    """Counts of what the declaration was held against; null until that was done."""

    failure: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    ready_at: Mapped[datetime | None]
