"""an estimate says how many of its samples left the dataset

Safe while serving: a column with a constant default. An estimate of before says 0.
"""

import sqlalchemy as sa
from alembic import op

revision = "c20f6b8d91e3"
down_revision = "5d7e0a94c2b6"


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.add_column(
        "estimate_targets",
        sa.Column("former", sa.Integer, nullable=False, server_default=sa.text("0")),
    )


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_column("estimate_targets", "former")
