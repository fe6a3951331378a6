"""models: what their team says of their accuracy

Safe while serving: two columns, one with a constant default. Once a model is ready, both stay as
they are.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "3d5f0b8e71c4"
down_revision = "7e20b5c91fd4"

DEFINED = (
    "name", "dataset_id", "weights_uri", "architecture", "head", "preprocessing", "recipe",
    "policy", "status",
)  # fmt: skip
"""What of a ready model did not change before; the columns of the migration `roles`."""

ADDED = ("expected_accuracy", "accept_accuracy")


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.add_column("models", sa.Column("expected_accuracy", JSONB))
    op.add_column(
        "models",
        sa.Column("accept_accuracy", sa.Boolean, nullable=False, server_default=sa.false()),
    )
    keep((*DEFINED, *ADDED))


def keep(columns: Sequence[str]) -> None:
    named = ", ".join(f"'{column}'" for column in columns)
    op.execute("DROP TRIGGER kept ON models")
    op.execute(
        "CREATE TRIGGER kept BEFORE UPDATE ON models FOR EACH ROW "
        f"EXECUTE FUNCTION keep_definition({named})"
    )


def downgrade() -> None:
    """What was accepted stands in the audit trail and in certificates, and no longer here."""
    op.execute("SET LOCAL lock_timeout = '5s'")
    keep(DEFINED)
    op.drop_column("models", "accept_accuracy")
    op.drop_column("models", "expected_accuracy")
