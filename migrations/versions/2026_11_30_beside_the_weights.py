"""models: what their registration declared, and what was found beside their weights

Safe while serving: two columns without defaults. Models of earlier releases have neither; they are
as they were registered. Once a model is ready, both stay as they are.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "3a6f1c9d7b24"
down_revision = "3d5f0b8e71c4"

DEFINED = (
    "name", "dataset_id", "weights_uri", "architecture", "head", "preprocessing", "recipe",
    "policy", "status", "expected_accuracy", "accept_accuracy",
)  # fmt: skip
"""What of a ready model did not change before; the columns of the migration `accuracy`."""

ADDED = ("declared", "found")


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    for column in ADDED:
        op.add_column("models", sa.Column(column, JSONB))
    keep((*DEFINED, *ADDED))


def keep(columns: Sequence[str]) -> None:
    named = ", ".join(f"'{column}'" for column in columns)
    op.execute("DROP TRIGGER kept ON models")
    op.execute(
        "CREATE TRIGGER kept BEFORE UPDATE ON models FOR EACH ROW "
        f"EXECUTE FUNCTION keep_definition({named})"
    )


def downgrade() -> None:
    """A model stays as it is used; what its registration declared of it is forgotten."""
    op.execute("SET LOCAL lock_timeout = '5s'")
    keep(DEFINED)
    for column in reversed(ADDED):
        op.drop_column("models", column)
