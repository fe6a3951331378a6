"""checks of Parquet files: a kind of job, with its question and answer

Safe while serving: a new table; a check on the jobs, under a short lock.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "e7a9316f52c8"
down_revision = "c4d80b7a1e95"

KINDS = (
    "index_dataset", "register_model", "train_references", "unlearn", "estimate", "purge",
    "erase_rows",
)  # fmt: skip


def job_kinds(*kinds: str) -> None:
    listed = ", ".join(f"'{kind}'" for kind in kinds)
    op.drop_constraint("jobs_kind_check", "jobs")
    op.create_check_constraint("kind", "jobs", f"kind IN ({listed})")


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    job_kinds(*KINDS, "check_dataset")
    op.create_table(
        "dataset_checks",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("dataset_id", sa.Uuid, sa.ForeignKey("datasets.id"), nullable=False),
        sa.Column("job_id", sa.Uuid, sa.ForeignKey("jobs.id"), nullable=False),
        sa.Column("uri", sa.String, nullable=False),
        sa.Column("column", sa.String, nullable=False),
        sa.Column("rows", sa.BigInteger),
        sa.Column("suppressed", sa.BigInteger),
        sa.Column("positions", JSONB),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False
        ),
        sa.UniqueConstraint("job_id"),
        sa.CheckConstraint(
            "num_nulls(rows, suppressed, positions) IN (0, 3)", name="answered_as_a_whole"
        ),
    )


def downgrade() -> None:
    """File checks are lost, with the records of their jobs."""
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_table("dataset_checks")
    op.execute("DELETE FROM jobs WHERE kind = 'check_dataset'")
    job_kinds(*KINDS)
