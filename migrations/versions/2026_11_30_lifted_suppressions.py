"""suppressions can be lifted: who did so and why, and the samples that it is about

Safe while serving: earlier code does not know of lifts, and goes on suppressing.
"""

import sqlalchemy as sa
from alembic import op

revision = "d81c3f70a5e9"
down_revision = "a6d20f8e4b13"


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.create_table(
        "suppression_lifts",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("dataset_id", sa.Uuid, sa.ForeignKey("datasets.id"), nullable=False),
        sa.Column("samples", sa.Integer, nullable=False),
        sa.Column("reason", sa.String, nullable=False),
        sa.Column("authorised_by", sa.String, nullable=False),
        sa.Column("lifted_by", sa.String, nullable=False),
        sa.Column(
            "lifted_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()
        ),
    )
    of_dataset = "suppression_lifts_dataset_id_id_idx"
    op.create_index(of_dataset, "suppression_lifts", ["dataset_id", "id"])
    op.create_table(
        "lifted_samples",
        sa.Column("dataset_id", sa.Uuid, sa.ForeignKey("datasets.id"), primary_key=True),
        sa.Column("digest", sa.LargeBinary, primary_key=True),
        sa.Column("lift_id", sa.Uuid, sa.ForeignKey("suppression_lifts.id"), nullable=False),
    )
    op.create_index("lifted_samples_lift_id_idx", "lifted_samples", ["lift_id"])


def downgrade() -> None:
    """What was lifted is suppressed again."""
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_table("lifted_samples")
    op.drop_table("suppression_lifts")
