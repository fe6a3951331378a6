"""the time zone in which a request's month is counted

Safe while serving: earlier code leaves the column empty, which means UTC.
"""

import sqlalchemy as sa
from alembic import op

revision = "a6d20f8e4b13"
down_revision = "5b1f07c9e2a4"


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.add_column("deletion_requests", sa.Column("time_zone", sa.String))


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_column("deletion_requests", "time_zone")
