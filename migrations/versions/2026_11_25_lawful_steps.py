"""lawful steps: triggers that refuse all others; cancelled jobs, checkpoints, overdue requests

Safe while serving: a new table, columns without a default, triggers; a check on a small table,
under a short lock.
"""

from collections.abc import Mapping, Sequence

import sqlalchemy as sa
from alembic import op

revision = "b7f3c2a8d514"
down_revision = "08aa54fb8870"

REQUEST_STEPS = {
    "pending": ["scheduled", "completed", "cancelled"],
    "scheduled": ["pending", "running", "completed", "cancelled"],
    "running": ["pending", "scheduled", "completed", "needs_review", "failed", "cancelled"],
    "needs_review": ["pending", "completed", "refused"],
    "failed": ["scheduled", "cancelled"],
}
SUM_STEPS = {
    "pending": ["scheduled", "completed", "cancelled", "refused"],
    "scheduled": ["pending", "running", "completed", "cancelled", "refused"],
    "running": [
        "pending", "scheduled", "completed", "needs_review", "failed", "cancelled", "refused",
    ],
    "needs_review": [
        "pending", "scheduled", "running", "completed", "failed", "cancelled", "refused",
    ],
    "failed": ["scheduled", "running", "cancelled", "refused"],
}  # fmt: skip
JOB_STEPS = {
    "queued": ["running", "cancelled"],
    "running": ["queued", "completed", "failed", "cancelled"],
    "failed": ["queued"],
}
VERSION_STEPS = {"candidate": ["champion", "superseded"], "champion": ["superseded"]}
GUARDED = {
    "deletion_targets": REQUEST_STEPS,
    "deletion_requests": SUM_STEPS,
    "jobs": JOB_STEPS,
    "model_versions": VERSION_STEPS,
}


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    job_statuses("queued", "running", "completed", "failed", "cancelled")
    op.add_column("jobs", sa.Column("not_before", sa.DateTime(timezone=True)))
    op.add_column("deletion_requests", sa.Column("overdue_at", sa.DateTime(timezone=True)))
    op.create_table(
        "checkpoints",
        sa.Column("job_id", sa.Uuid, sa.ForeignKey("jobs.id"), primary_key=True),
        sa.Column("round", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("cycle", sa.Integer, nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("sha256", sa.String, nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False
        ),
    )
    op.execute(
        """
        CREATE FUNCTION refuse_unlawful_step() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION 'no step leads from % to % in %', OLD.status, NEW.status, TG_TABLE_NAME
            USING ERRCODE = 'check_violation';
        END $$
        """
    )
    for table, steps in GUARDED.items():
        op.execute(
            f"CREATE TRIGGER lawful_steps BEFORE UPDATE OF status ON {table} FOR EACH ROW "
            f"WHEN (OLD.status <> NEW.status AND NOT ({lawful(steps)})) "
            "EXECUTE FUNCTION refuse_unlawful_step()"
        )


def lawful(steps: Mapping[str, Sequence[str]]) -> str:
    """The condition that a step is in the table. Its cost in the trigger is negligible."""
    return " OR ".join(
        f"OLD.status = '{source}' AND NEW.status IN ({listed(targets)})"
        for source, targets in steps.items()
    )


def listed(values: Sequence[str]) -> str:
    return ", ".join(f"'{value}'" for value in values)


def job_statuses(*values: str) -> None:
    op.drop_constraint("jobs_status_check", "jobs")
    op.create_check_constraint("status", "jobs", f"status IN ({listed(values)})")


def downgrade() -> None:
    """Cancelled jobs become failed ones. Checkpoint files are left behind: stop the worker first,
    then remove `checkpoints` in its store."""
    op.execute("SET LOCAL lock_timeout = '5s'")
    for table in GUARDED:
        op.execute(f"DROP TRIGGER lawful_steps ON {table}")
    op.execute("DROP FUNCTION refuse_unlawful_step()")
    op.execute(
        "UPDATE jobs SET status = 'failed', "
        """failure = '{"kind": "input", "reason": "It was cancelled."}' """
        "WHERE status = 'cancelled'"
    )
    job_statuses("queued", "running", "completed", "failed")
    op.drop_table("checkpoints")
    op.drop_column("deletion_requests", "overdue_at")
    op.drop_column("jobs", "not_before")
