"""near_duplicates: samples that are nearly the same, as groups where a model's policy asks for it

Safe while serving: a table, a column without a default, and a view that has more rows.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "9c1f7a62e0b5"
down_revision = "7c2d91be40f6"

OF_THE_MODEL = """
            UNION ALL
            SELECT model.id, 'near_duplicates', 'near_duplicates', NULL, NULL, first.job_id,
                   first.created_at, NULL, NULL, 'infinity'
            FROM models model JOIN model_versions first ON first.model_id = model.id
            WHERE first.number = 1 AND model.policy ->> 'group' = 'near_duplicates'
"""
"""Rows of forgotten samples go in the transaction that makes them forgotten."""


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.add_column("models", sa.Column("near_duplicates", postgresql.JSONB))
    op.create_table(
        "near_duplicates",
        sa.Column("model_id", sa.Uuid, primary_key=True),
        sa.Column("sample_id", sa.String, primary_key=True),
        sa.Column("group_number", sa.Integer, nullable=False),
    )
    replace_view(OF_THE_MODEL)


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


def downgrade() -> None:
    """Which samples are nearly the same is forgotten, and that a policy asked for it: earlier code
    knows no such policy."""
    op.execute("SET LOCAL lock_timeout = '5s'")
    replace_view("")
    op.drop_table("near_duplicates")
    op.drop_column("models", "near_duplicates")
    op.execute("UPDATE models SET policy = policy - 'group'")
