"""references and estimates: two kinds of jobs, and their tables

Safe while serving: new tables; a check and an index on the jobs, under a short lock.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "08aa54fb8870"
down_revision = "5c1b7d0e9a42"

OPEN_JOB = "status IN ('queued', 'running')"
KINDS = ("index_dataset", "register_model", "unlearn")
MORE_KINDS = ("index_dataset", "register_model", "train_references", "unlearn", "estimate")


def job_kinds(kinds: tuple[str, ...]) -> None:
    listed = ", ".join(f"'{kind}'" for kind in kinds)
    op.drop_constraint("jobs_kind_check", "jobs")
    op.create_check_constraint("kind", "jobs", f"kind IN ({listed})")


def one_open_job_per_model(condition: str) -> None:
    op.drop_index("jobs_one_open_per_model_idx", "jobs")
    op.create_index(
        "jobs_one_open_per_model_idx",
        "jobs",
        ["model_id"],
        unique=True,
        postgresql_where=sa.text(condition),
    )


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    job_kinds(MORE_KINDS)
    one_open_job_per_model(f"{OPEN_JOB} AND kind <> 'estimate'")
    create_reference_tables()
    create_estimates()


def create_reference_tables() -> None:
    op.create_table(
        "reference_tables",
        sa.Column("model_id", sa.Uuid, sa.ForeignKey("models.id"), primary_key=True),
        sa.Column("job_id", sa.Uuid, sa.ForeignKey("jobs.id"), nullable=False),
        sa.Column("models", sa.Integer, nullable=False),
        sa.Column("recipe", sa.String, nullable=False),
        sa.Column(
            "completed_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False
        ),
        sa.UniqueConstraint("job_id"),
    )
    op.create_table(
        "out_of_sample_predictions",
        sa.Column("model_id", sa.Uuid, primary_key=True),
        sa.Column("sample_id", sa.String, primary_key=True),
        sa.Column("probabilities", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "membership_statistics",
        sa.Column("model_id", sa.Uuid, primary_key=True),
        sa.Column("sample_id", sa.String, primary_key=True),
        sa.Column("in_mean", sa.REAL),
        sa.Column("in_std", sa.REAL),
        sa.Column("out_mean", sa.REAL, nullable=False),
        sa.Column("out_std", sa.REAL, nullable=False),
    )


def create_estimates() -> None:
    objective = sa.Enum(
        "untrain_samples", "remove_class",
        name="objective", native_enum=False, create_constraint=True, length=24,
    )  # fmt: skip
    op.create_table(
        "estimates",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("dataset_id", sa.Uuid, sa.ForeignKey("datasets.id"), nullable=False),
        sa.Column("objective", objective, nullable=False),
        sa.Column("exact", sa.Boolean, nullable=False),
        sa.Column("samples", sa.Integer, nullable=False),
        sa.Column("duplicates", sa.Integer, nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False
        ),
    )
    op.create_table(
        "estimate_targets",
        sa.Column("estimate_id", sa.Uuid, sa.ForeignKey("estimates.id"), primary_key=True),
        sa.Column("model_id", sa.Uuid, sa.ForeignKey("models.id"), primary_key=True),
        sa.Column("job_id", sa.Uuid, sa.ForeignKey("jobs.id"), nullable=False),
        sa.Column("already_forgotten", sa.Integer, nullable=False),
        sa.Column("not_trained_on", sa.Integer, nullable=False),
        sa.Column("result", JSONB),
        sa.UniqueConstraint("job_id"),
    )
    op.create_table(
        "estimate_samples",
        sa.Column("job_id", sa.Uuid, primary_key=True),
        sa.Column("sample_id", sa.String, primary_key=True),
    )


def downgrade() -> None:
    """Reference tables and estimates are lost, with the records of their jobs."""
    op.execute("SET LOCAL lock_timeout = '5s'")
    for table in (
        "estimate_samples", "estimate_targets", "estimates",
        "membership_statistics", "out_of_sample_predictions", "reference_tables",
    ):  # fmt: skip
        op.drop_table(table)
    op.execute("DELETE FROM jobs WHERE kind IN ('train_references', 'estimate')")
    one_open_job_per_model(OPEN_JOB)
    job_kinds(KINDS)
