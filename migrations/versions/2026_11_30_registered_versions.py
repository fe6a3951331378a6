"""versions that were trained elsewhere: their registrations, their jobs, and their source files

Safe while serving: a new table, a view that has more rows, a function that allows more, and a check
on a small table, under a short lock.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "5c0e8d7a21f6"
down_revision = "9e4b7a1c35d2"

KINDS = [
    "index_dataset", "register_model", "train_references", "unlearn", "estimate", "purge",
    "erase_rows", "check_dataset",
]  # fmt: skip
STATUSES = "'pending', 'ready', 'failed'"

SOURCES = """
            UNION ALL
            SELECT version.model_id, 'source_weights', offered.weights_uri, version.id,
                   version.number, version.job_id, version.created_at, NULL, NULL,
                   version.created_at + interval '1 microsecond'
            FROM version_registrations offered JOIN model_versions version USING (job_id)
"""
"""The file that such a version was registered from: it knows what was made forgotten after that.
What its own job says is forgotten it was trained without."""


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    job_kinds(*KINDS[:2], "register_version", *KINDS[2:])
    op.create_table(
        "version_registrations",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("model_id", sa.Uuid, sa.ForeignKey("models.id"), nullable=False),
        sa.Column("job_id", sa.Uuid, sa.ForeignKey("jobs.id"), nullable=False, unique=True),
        sa.Column("idempotency_key", sa.String, nullable=False),
        sa.Column("fingerprint", sa.String, nullable=False),
        sa.Column("weights_uri", sa.String, nullable=False),
        sa.Column("trained_on", postgresql.JSONB, nullable=False),
        sa.Column("expected_accuracy", postgresql.JSONB),
        sa.Column("accept_accuracy", sa.Boolean, nullable=False),
        sa.Column("accept_memory", sa.Boolean, nullable=False),
        sa.Column("status", sa.String(24), nullable=False),
        sa.Column("found", postgresql.JSONB),
        sa.Column("failure", sa.String),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()
        ),
        sa.Column("ready_at", sa.DateTime(timezone=True)),
        sa.UniqueConstraint("model_id", "idempotency_key"),
        sa.CheckConstraint(f"status IN ({STATUSES})", "status"),
        sa.CheckConstraint("(status = 'failed') = (failure IS NOT NULL)", "failure_iff_failed"),
    )
    op.execute(
        "CREATE TRIGGER begun BEFORE INSERT OR UPDATE OF status ON version_registrations "
        "FOR EACH ROW EXECUTE FUNCTION keep_beginning('found', 'failure', 'ready_at')"
    )
    keep_tombstones("'unlearn', 'register_version'")
    replace_view(SOURCES)


def keep_tombstones(kinds: str) -> None:
    """As in the migration `roles`, for jobs of these kinds."""
    schema = op.get_bind().scalar(sa.text("SELECT quote_ident(current_schema())"))
    op.execute(
        f"""
        CREATE OR REPLACE FUNCTION keep_tombstones() RETURNS trigger LANGUAGE plpgsql
        SET search_path = pg_catalog, {schema}, pg_temp AS $$
        BEGIN
            IF EXISTS (
                SELECT FROM added WHERE NOT EXISTS (
                    SELECT FROM {schema}.jobs job
                    WHERE job.id = added.job_id AND job.model_id = added.model_id
                      AND job.kind IN ({kinds}) AND job.status IN ('running', 'completed')
                )
            ) AND NOT pg_catalog.pg_has_role(
                current_user, (SELECT relowner FROM pg_catalog.pg_class WHERE oid = TG_RELID),
                'USAGE'
            ) THEN
                RAISE EXCEPTION 'a sample is forgotten by a job of its model that runs, or whose '
                    'outcome is accepted: % of % refused', TG_OP, TG_TABLE_NAME
                USING ERRCODE = 'check_violation';
            END IF;
            RETURN NEW;
        END $$
        """  # noqa: S608  # the schema's name, quoted, and kinds that stand above
    )


def replace_view(more: str) -> None:
    op.execute(
        f"""
        CREATE OR REPLACE VIEW derived_data AS
        WITH versions AS (
            SELECT version.*,
                   CASE WHEN version.status = 'champion' THEN 'infinity'
                        WHEN version.status = 'superseded'
                             AND (version.parent_id IS NULL OR maker.forgotten_at IS NOT NULL)
                        THEN version.superseded_at
                        ELSE version.created_at
                   END AS honours_until
            FROM model_versions version JOIN jobs maker ON maker.id = version.job_id
        ), derived AS (
            SELECT versions.model_id, file.kind, file.name, versions.id AS version_id,
                   versions.number AS version, versions.job_id, versions.created_at,
                   versions.purge_after, versions.purged_at, versions.honours_until
            FROM versions CROSS JOIN LATERAL (VALUES
                ('weights', weights_sha256),
                ('statistics', statistics_sha256),
                ('reservoir', reservoir_sha256)
            ) AS file (kind, name)
            UNION ALL
            SELECT tables.model_id, named.kind, named.kind, NULL, NULL, tables.job_id,
                   tables.completed_at, NULL, NULL, maker.started_at
            FROM reference_tables tables JOIN jobs maker ON maker.id = tables.job_id
            CROSS JOIN LATERAL (VALUES
                ('out_of_sample_predictions'), ('membership_statistics')
            ) AS named (kind)
            UNION ALL
            SELECT id, 'source_weights', weights_uri, NULL, NULL, NULL, created_at, NULL, NULL,
                   '-infinity'
            FROM models
            UNION ALL
            SELECT model.id, 'near_duplicates', 'near_duplicates', NULL, NULL, first.job_id,
                   first.created_at, NULL, NULL, 'infinity'
            FROM models model JOIN model_versions first ON first.model_id = model.id
            WHERE first.number = 1 AND model.policy ->> 'group' = 'near_duplicates'
              AND model.status <> 'deleted'
            {more}
        )
        SELECT model_id, kind, name, version_id, version, job_id, created_at,
               ARRAY(
                   SELECT job.id FROM jobs job
                   WHERE job.model_id = derived.model_id
                     AND job.forgotten_at >= derived.honours_until
                   ORDER BY job.forgotten_at, job.id
               ) AS tainted_by,
               purge_after, purged_at
        FROM derived
        UNION ALL
        SELECT job.model_id, 'checkpoint', checkpoint.sha256, NULL, NULL, job.id,
               checkpoint.created_at, ARRAY[job.id], NULL, NULL
        FROM checkpoints checkpoint JOIN jobs job ON job.id = checkpoint.job_id
        """  # noqa: S608  # `more` stands above
    )


def job_kinds(*kinds: str) -> None:
    listed = ", ".join(f"'{kind}'" for kind in kinds)
    op.drop_constraint("jobs_kind_check", "jobs")
    op.create_check_constraint("kind", "jobs", f"kind IN ({listed})")


def downgrade() -> None:
    """Refused where there are such versions: earlier code takes them for versions that a job of
    its own made, and their jobs have no kind that it knows."""
    op.execute("SET LOCAL lock_timeout = '5s'")
    made = "SELECT EXISTS (SELECT FROM version_registrations WHERE status = 'ready')"
    if op.get_bind().scalar(sa.text(made)):
        raise RuntimeError(
            "Versions that were trained elsewhere are registered, and earlier releases cannot keep "
            "them. Restore a backup from before the upgrade instead."
        )
    replace_view("")
    keep_tombstones("'unlearn'")
    op.drop_table("version_registrations")
    op.execute("DELETE FROM jobs WHERE kind = 'register_version'")
    job_kinds(*KINDS)
