"""requests know what became of the rows of their samples in the dataset's files

Safe while serving: columns without a default, and an index on them. Requests whose rows a job
failed to erase, or has yet to erase, are told so; of others of older releases nothing is known.
"""

import sqlalchemy as sa
from alembic import op

revision = "5b1f07c9e2a4"
down_revision = "3a6f1c9d7b24"


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.add_column("deletion_requests", sa.Column("rows_status", sa.String(24)))
    op.add_column("deletion_requests", sa.Column("rows_left", sa.Integer))
    op.add_column("deletion_requests", sa.Column("rows_job_id", sa.Uuid))
    op.add_column("deletion_requests", sa.Column("rows_at", sa.DateTime(timezone=True)))
    op.create_foreign_key(
        "deletion_requests_rows_job_id_fkey", "deletion_requests", "jobs", ["rows_job_id"], ["id"]
    )
    op.create_check_constraint(
        "rows_status", "deletion_requests",
        "rows_status IN ('waiting', 'failed', 'held', 'gone')",
    )  # fmt: skip
    op.create_index(
        "deletion_requests_rows_idx", "deletion_requests", ["dataset_id", "rows_status"],
        postgresql_where=sa.text("rows_status IS NOT NULL"),
    )  # fmt: skip
    op.execute(
        """
        UPDATE deletion_requests SET
            rows_status = CASE job.status WHEN 'failed' THEN 'failed' ELSE 'waiting' END,
            rows_job_id = CASE job.status WHEN 'failed' THEN job.id END,
            rows_at = CASE job.status WHEN 'failed' THEN job.finished_at END
        FROM (
            SELECT DISTINCT ON (dataset_id) id, dataset_id, status, finished_at
            FROM jobs WHERE kind = 'erase_rows' ORDER BY dataset_id, id DESC
        ) AS job
        JOIN datasets ON datasets.id = job.dataset_id
        WHERE deletion_requests.dataset_id = job.dataset_id
          AND deletion_requests.status = 'completed'
          AND job.status IN ('queued', 'running', 'failed')
          AND (datasets.definition->'erase'->>'parquet')::boolean
        """
    )


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.execute(
        "DELETE FROM request_samples USING deletion_requests request "
        "WHERE request.id = request_id AND request.status IN ('completed', 'cancelled', 'refused')"
    )
    for name in ("rows_at", "rows_job_id", "rows_left", "rows_status"):
        op.drop_column("deletion_requests", name)
