"""Whom to tell, and what."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import (
    CheckConstraint,
    ForeignKey,
    Index,
    func,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column
from uuid_utils.compat import uuid7

from domain.states import (
    DeliveryFailure,
    DeliveryStatus,
    WebhookStatus,
)
from domain.tables.columns import Base


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
