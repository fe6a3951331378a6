"""webhooks: where to send, and what is sent

Safe while serving: new tables only.
"""

import sqlalchemy as sa
from alembic import op

revision = "d4c1f0a86b27"
down_revision = "b7f3c2a8d514"

FAILURES = (
    "status", "redirect", "gone", "timeout", "connection", "tls", "dns", "address_refused",
    "disabled",
)  # fmt: skip


def one_of(name: str, *values: str) -> sa.Enum:
    return sa.Enum(*values, name=name, native_enum=False, create_constraint=True, length=24)


def instant(name: str, *, given: bool = False) -> sa.Column[object]:
    now = sa.func.now() if given else None
    return sa.Column(name, sa.DateTime(timezone=True), server_default=now, nullable=not given)


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    create_endpoints()
    create_deliveries()


def create_endpoints() -> None:
    op.create_table(
        "webhook_endpoints",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("url", sa.String, nullable=False),
        sa.Column("description", sa.String),
        sa.Column("events", sa.ARRAY(sa.String)),
        sa.Column("status", one_of("status", "enabled", "disabled"), nullable=False),
        sa.Column("disabled_reason", sa.String),
        sa.Column("secret", sa.String, nullable=False),
        sa.Column("previous_secret", sa.String),
        instant("previous_secret_until"),
        instant("created_at", given=True),
        sa.UniqueConstraint("url"),
        sa.CheckConstraint(
            "(status = 'disabled') = (disabled_reason IS NOT NULL)", "reason_iff_disabled"
        ),
        sa.CheckConstraint(
            "(previous_secret IS NULL) = (previous_secret_until IS NULL)", "previous_secret"
        ),
    )


def create_deliveries() -> None:
    op.create_table(
        "webhook_deliveries",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column(
            "endpoint_id",
            sa.Uuid,
            sa.ForeignKey("webhook_endpoints.id", ondelete="CASCADE"),
            nullable=False,
        ),
        sa.Column("event", sa.String, nullable=False),
        sa.Column("body", sa.String, nullable=False),
        sa.Column("status", one_of("status", "waiting", "delivered", "dead"), nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        instant("next_attempt_at", given=True),
        sa.Column("response_status", sa.Integer),
        sa.Column("failure", one_of("failure", *FAILURES)),
        instant("created_at", given=True),
        instant("finished_at"),
        sa.CheckConstraint("(status = 'waiting') = (finished_at IS NULL)", "finished_at"),
    )
    op.create_index(
        "webhook_deliveries_due_idx",
        "webhook_deliveries",
        ["endpoint_id", "next_attempt_at"],
        postgresql_where=sa.text("status = 'waiting'"),
    )
    op.create_index(
        "webhook_deliveries_finished_idx",
        "webhook_deliveries",
        ["status", "finished_at"],
        postgresql_where=sa.text("status <> 'waiting'"),
    )
    op.create_index(None, "webhook_deliveries", ["endpoint_id", "id"])
    op.execute(
        """
        CREATE TRIGGER lawful_steps BEFORE UPDATE OF status ON webhook_deliveries FOR EACH ROW
        WHEN (OLD.status <> NEW.status AND NOT (
            OLD.status = 'waiting' AND NEW.status IN ('delivered', 'dead')
            OR OLD.status = 'dead' AND NEW.status = 'waiting'
        )) EXECUTE FUNCTION refuse_unlawful_step()
        """
    )


def downgrade() -> None:
    """The endpoints and undelivered messages are lost."""
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_table("webhook_deliveries")
    op.drop_table("webhook_endpoints")
