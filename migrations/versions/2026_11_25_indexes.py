"""indexes: lists of requests by status and by model, and the counts of the figures

Writes to the two tables wait while the indexes are built: seconds for a million rows.
"""

from alembic import op

revision = "3d9e5f60a1c7"
down_revision = "d4c1f0a86b27"


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.create_index("deletion_requests_status_id_idx", "deletion_requests", ["status", "id"])
    op.create_index(
        "deletion_targets_model_id_request_id_idx", "deletion_targets", ["model_id", "request_id"]
    )
    open_requests(include=["created_at"])


def open_requests(include: list[str]) -> None:
    op.drop_index("deletion_requests_open_idx", "deletion_requests")
    op.create_index(
        "deletion_requests_open_idx",
        "deletion_requests",
        ["status", "due_at"],
        postgresql_include=include,
    )


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    open_requests(include=[])
    op.drop_index("deletion_targets_model_id_request_id_idx", "deletion_targets")
    op.drop_index("deletion_requests_status_id_idx", "deletion_requests")
