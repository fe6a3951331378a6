"""models: what their team says of their accuracy

Safe while serving: two columns, one with a constant default.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "3d5f0b8e71c4"
down_revision = "f20c6b8d714a"


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.add_column("models", sa.Column("expected_accuracy", JSONB))
    op.add_column(
        "models",
        sa.Column("accept_accuracy", sa.Boolean, nullable=False, server_default=sa.false()),
    )


def downgrade() -> None:
    """What was accepted stands in the audit trail and in certificates, and no longer here."""
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_column("models", "accept_accuracy")
    op.drop_column("models", "expected_accuracy")
