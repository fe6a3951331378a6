"""indexes: lists of requests by status and by model, newest first

Writes to the two tables wait while the indexes are built: a second for a million rows.
"""

from alembic import op

revision = "3d9e5f60a1c7"
down_revision = "b7f3c2a8d514"

INDEXES = {
    "deletion_requests_status_id_idx": ("deletion_requests", ["status", "id"]),
    "deletion_targets_model_id_request_id_idx": ("deletion_targets", ["model_id", "request_id"]),
}


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    for name, (table, columns) in INDEXES.items():
        op.create_index(name, table, columns)


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    for name, (table, _) in INDEXES.items():
        op.drop_index(name, table)
