"""which acceptance of a person a target waits for, and a job makes good

Safe while serving: earlier code leaves the columns empty. An earlier worker would put what waits
for such a job into an ordinary one, so that the person may be asked again.
"""

import sqlalchemy as sa
from alembic import op

revision = "7c3f9e05d2a8"
down_revision = "9c1f7a62e0b5"


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    for table in ("deletion_targets", "jobs"):
        op.add_column(table, sa.Column("accepted_job_id", sa.Uuid))
        op.create_foreign_key(
            f"{table}_accepted_job_id_fkey", table, "jobs", ["accepted_job_id"], ["id"]
        )


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    for table in ("deletion_targets", "jobs"):
        op.drop_constraint(f"{table}_accepted_job_id_fkey", table)
        op.drop_column(table, "accepted_job_id")
