"""What jobs measured of what they made a model forget, to be judged together. No ids of samples."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, func
from sqlalchemy.orm import Mapped, mapped_column

from domain.states import Verdict
from domain.tables.columns import Base


class PooledStatistic(Base):
    """One forgotten group, or sample on its own, under the version that was made to forget it.

    Rows go after the days of the model's policy. Nothing here leads to a sample or a person but by
    way of the job, whose requests name none once they are answered.
    """

    __tablename__ = "pooled_statistics"
    __table_args__ = (
        Index(None, "model_id", "created_at"),
        CheckConstraint("before BETWEEN 0 AND 1 AND after BETWEEN 0 AND 1", "shares"),
    )

    job_id: Mapped[UUID] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    unit: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    """From 0, in the order in which the job read them."""

    model_id: Mapped[UUID] = mapped_column(ForeignKey("models.id"))
    samples: Mapped[int]
    label: Mapped[int | None]
    """Its class; null where it has several."""

    before: Mapped[float]
    """The share of unseen samples of its classes with a higher loss, in the version that knew it;
    0.5 on average for what a model never saw."""

    after: Mapped[float]
    """The same in the version that was made to forget it."""

    peers: Mapped[int]
    """How many unseen groups of its classes it was compared with."""

    everyone: Mapped[int]
    """How many unseen groups the job compared with in all."""

    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class PooledAudit(Base):
    """What the forgotten groups of the last jobs say together, when a version was made."""

    __tablename__ = "pooled_audits"
    __table_args__ = (Index(None, "model_id", "version"),)

    job_id: Mapped[UUID] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    """The job that made the version."""

    model_id: Mapped[UUID] = mapped_column(ForeignKey("models.id"))
    version: Mapped[int]
    """Its number."""

    verdict: Mapped[Verdict]
    returned: Mapped[bool]
    """Whether they can be told apart now, and could not under the version before."""

    figures: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
