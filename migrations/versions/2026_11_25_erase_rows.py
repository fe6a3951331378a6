"""rows of forgotten samples erased from Parquet files: a kind of job, and what the files were like

Safe while serving: a new column; a check on the jobs, under a short lock.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "c4d80b7a1e95"
down_revision = "a41c7be09d32"

KINDS = ("index_dataset", "register_model", "train_references", "unlearn", "estimate", "purge")


def job_kinds(*kinds: str) -> None:
    listed = ", ".join(f"'{kind}'" for kind in kinds)
    op.drop_constraint("jobs_kind_check", "jobs")
    op.create_check_constraint("kind", "jobs", f"kind IN ({listed})")


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    job_kinds(*KINDS, "erase_rows")
    op.add_column("datasets", sa.Column("files", JSONB))


def downgrade() -> None:
    """The records of erasing jobs are lost; erased rows stay erased."""
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_column("datasets", "files")
    op.execute("DELETE FROM jobs WHERE kind = 'erase_rows'")
    job_kinds(*KINDS)
