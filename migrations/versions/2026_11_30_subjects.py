"""how many subjects requests and estimates named, and what was found of them

Safe while serving: earlier code names no subjects, and 0 stands in its rows.
"""

import sqlalchemy as sa
from alembic import op

revision = "7c2d91be40f6"
down_revision = "4be9a1d70c52"

TABLES = ("deletion_requests", "estimates")
COUNTS = ("subjects", "unknown_subjects", "subject_samples")


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    for table in TABLES:
        for count in COUNTS:
            op.add_column(table, sa.Column(count, sa.Integer, nullable=False, server_default="0"))


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    for table in TABLES:
        for count in reversed(COUNTS):
            op.drop_column(table, count)
