"""Suppressions that were lifted: who did so and why, and what may be trained on again."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import ForeignKey, Index, func
from sqlalchemy.orm import Mapped, mapped_column
from uuid_utils.compat import uuid7

from domain.tables.columns import Base


class SuppressionLift(Base):
    """One decision that samples may be trained on again; it stays, as the proof of a consent."""

    __tablename__ = "suppression_lifts"
    __table_args__ = (Index(None, "dataset_id", "id"),)

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid7)
    dataset_id: Mapped[UUID] = mapped_column(ForeignKey("datasets.id"))
    samples: Mapped[int]
    """How many samples it lifted the suppression of."""

    reason: Mapped[str]
    authorised_by: Mapped[str]
    """The person who answers for it, in the words of whoever sent it."""

    lifted_by: Mapped[str]
    """Whose key it was sent with."""

    lifted_at: Mapped[datetime] = mapped_column(server_default=func.now())


class LiftedSample(Base):
    """A sample that may be trained on again, though models have forgotten it. It goes when a new
    deletion request names the sample."""

    __tablename__ = "lifted_samples"
    __table_args__ = (Index(None, "lift_id"),)

    dataset_id: Mapped[UUID] = mapped_column(ForeignKey("datasets.id"), primary_key=True)
    digest: Mapped[bytes] = mapped_column(primary_key=True)
    """Of its id, as in `Tombstone`."""

    lift_id: Mapped[UUID] = mapped_column(ForeignKey("suppression_lifts.id"))
