"""what jobs measured of what they made a model forget, and what it says together

Safe while serving: two new tables, which earlier code does not know.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "9e4b7a1c35d2"
down_revision = "7c3f9e05d2a8"


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.create_table(
        "pooled_statistics",
        sa.Column("job_id", sa.Uuid, nullable=False),
        sa.Column("unit", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("model_id", sa.Uuid, nullable=False),
        sa.Column("samples", sa.Integer, nullable=False),
        sa.Column("label", sa.Integer),
        sa.Column("before", sa.Float, nullable=False),
        sa.Column("after", sa.Float, nullable=False),
        sa.Column("peers", sa.Integer, nullable=False),
        sa.Column("everyone", sa.Integer, nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.func.now(),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("job_id", "unit", name="pooled_statistics_pkey"),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="pooled_statistics_job_id_fkey"),
        sa.ForeignKeyConstraint(
            ["model_id"], ["models.id"], name="pooled_statistics_model_id_fkey"
        ),
        sa.CheckConstraint(
            "before BETWEEN 0 AND 1 AND after BETWEEN 0 AND 1",
            name=op.f("pooled_statistics_shares_check"),
        ),
    )
    op.create_index(
        "pooled_statistics_model_id_created_at_idx",
        "pooled_statistics",
        ["model_id", "created_at"],
    )
    op.create_table(
        "pooled_audits",
        sa.Column("job_id", sa.Uuid, nullable=False),
        sa.Column("model_id", sa.Uuid, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("verdict", sa.String(24), nullable=False),
        sa.Column("returned", sa.Boolean, nullable=False),
        sa.Column("figures", JSONB, nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.func.now(),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("job_id", name="pooled_audits_pkey"),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="pooled_audits_job_id_fkey"),
        sa.CheckConstraint(
            "verdict IN ('pass', 'fail', 'no_power')", name=op.f("pooled_audits_verdict_check")
        ),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name="pooled_audits_model_id_fkey"),
    )
    op.create_index("pooled_audits_model_id_version_idx", "pooled_audits", ["model_id", "version"])


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_table("pooled_audits")
    op.drop_table("pooled_statistics")
