"""how long a retraining of a model takes, by what was measured

Safe while serving: a column without a default.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "5d7e0a94c2b6"
down_revision = "7e41c9b0d35f"


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.add_column("models", sa.Column("timings", postgresql.JSONB))


def downgrade() -> None:
    """What was measured is lost; it is measured anew by the next retraining."""
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_column("models", "timings")
