"""what a model's registration declared, and what was found beside its weights

Safe while serving: two columns without defaults. Models of earlier releases have neither; they are
as they were registered.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "3a6f1c9d7b24"
down_revision = "f20c6b8d714a"


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.add_column("models", sa.Column("declared", JSONB))
    op.add_column("models", sa.Column("found", JSONB))


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_column("models", "found")
    op.drop_column("models", "declared")
