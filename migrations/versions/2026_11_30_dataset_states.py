"""datasets have states: what came, went and changed, and what models were trained on

Safe while serving, but for datasets that are being indexed: a worker of before cannot stage rows
any more, and its job is to be retried. New tables, columns with constant defaults or none, a check
on a small table and a function that allows more, under a short lock. What is indexed already has no
digests of its content until the next state is.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "e6a94c02d5b8"
down_revision = "b3d1f60a94c7"

KINDS = [
    "index_dataset", "register_model", "register_version", "train_references", "unlearn",
    "estimate", "purge", "erase_rows", "check_dataset",
]  # fmt: skip
NUMBERS = {"datasets": ("state", "1"), "samples": ("since", "1"), "models": ("state", "1"),
           "deletion_targets": ("former", "0")}  # fmt: skip


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    job_kinds(KINDS[0], "index_state", *KINDS[1:])
    for table, (column, default) in NUMBERS.items():
        op.add_column(
            table, sa.Column(column, sa.Integer, nullable=False, server_default=sa.text(default))
        )
    for table in ("samples", "staged_samples"):
        op.add_column(table, sa.Column("content", sa.LargeBinary))
    op.create_table(
        "dataset_states",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("dataset_id", sa.Uuid, sa.ForeignKey("datasets.id"), nullable=False),
        sa.Column("job_id", sa.Uuid, sa.ForeignKey("jobs.id"), nullable=False, unique=True),
        sa.Column("idempotency_key", sa.String, nullable=False),
        sa.Column("fingerprint", sa.String, nullable=False),
        sa.Column("uri", sa.String, nullable=False),
        sa.Column("refuse_suppressed", sa.Boolean, nullable=False),
        sa.Column("status", sa.String(24), nullable=False),
        sa.Column("number", sa.Integer),
        sa.Column("found", postgresql.JSONB),
        sa.Column("failure", sa.String),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()
        ),
        sa.Column("ready_at", sa.DateTime(timezone=True)),
        sa.UniqueConstraint("dataset_id", "idempotency_key"),
        sa.UniqueConstraint("dataset_id", "number"),
        sa.CheckConstraint("status IN ('pending', 'ready', 'failed', 'deleted')", "status"),
        sa.CheckConstraint("(status = 'failed') = (failure IS NOT NULL)", "failure_iff_failed"),
        sa.CheckConstraint("(status = 'ready') = (number IS NOT NULL)", "number_iff_ready"),
    )
    op.create_table(
        "former_samples",
        sa.Column("dataset_id", sa.Uuid, sa.ForeignKey("datasets.id"), primary_key=True),
        sa.Column("sample_id", sa.String, primary_key=True),
        sa.Column("since", sa.Integer, nullable=False),
        sa.Column("removed_in", sa.Integer, nullable=False),
        sa.Column("content", sa.LargeBinary),
        sa.Column("group_digest", sa.LargeBinary),
    )
    op.execute(
        "CREATE TRIGGER begun BEFORE INSERT OR UPDATE OF status ON dataset_states "
        "FOR EACH ROW EXECUTE FUNCTION keep_beginning('number', 'found', 'failure', 'ready_at')"
    )
    keep_definition("OR name = 'uri' AND pg_catalog.pg_has_role(current_user, 'lethe_worker', "
                    "'USAGE')")  # fmt: skip


def keep_definition(more: str) -> None:
    """As in the migration `deletions`; the worker moves a dataset on to where its new state is."""
    schema = op.get_bind().scalar(sa.text("SELECT quote_ident(current_schema())"))
    op.execute(
        f"""
        CREATE OR REPLACE FUNCTION keep_definition() RETURNS trigger LANGUAGE plpgsql
        SET search_path = pg_catalog, {schema}, pg_temp AS $$
        BEGIN
            IF OLD.status IN ('ready', 'deleted') AND EXISTS (
                SELECT FROM unnest(TG_ARGV) AS given (name)
                WHERE to_jsonb(NEW) -> name IS DISTINCT FROM to_jsonb(OLD) -> name AND NOT (
                    name = 'status' AND OLD.status = 'ready' AND NEW.status = 'deleted' {more}
                )
            ) AND NOT pg_catalog.pg_has_role(
                current_user, (SELECT relowner FROM pg_catalog.pg_class WHERE oid = TG_RELID),
                'USAGE'
            ) THEN
                RAISE EXCEPTION 'what a ready one is does not change: % of % refused',
                    TG_OP, TG_TABLE_NAME
                USING ERRCODE = 'check_violation';
            END IF;
            RETURN NEW;
        END $$
        """  # noqa: S608  # words that stand above
    )


def job_kinds(*kinds: str) -> None:
    listed = ", ".join(f"'{kind}'" for kind in kinds)
    op.drop_constraint("jobs_kind_check", "jobs")
    op.create_check_constraint("kind", "jobs", f"kind IN ({listed})")


def downgrade() -> None:
    """Refused where a dataset has a later state: earlier code would take what models were never
    trained on for what they know."""
    op.execute("SET LOCAL lock_timeout = '5s'")
    later = "SELECT EXISTS (SELECT FROM datasets WHERE state > 1)"
    if op.get_bind().scalar(sa.text(later)):
        raise RuntimeError(
            "Datasets have later states, and earlier releases cannot keep them apart. Restore a "
            "backup from before the upgrade instead."
        )
    keep_definition("")
    op.drop_table("former_samples")
    op.drop_table("dataset_states")
    for table in ("samples", "staged_samples"):
        op.drop_column(table, "content")
    for table, (column, _) in NUMBERS.items():
        op.drop_column(table, column)
    op.execute("DELETE FROM jobs WHERE kind = 'index_state'")
    job_kinds(*KINDS)
