"""heads that are fitted anew on a frozen backbone: what was declared of it, and the features kept

Safe while serving: two columns without a default, and a view that has more rows. Beat of an earlier
release would take the new files for orphans, so replace it before a model with a `backbone` is
registered.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "b3d8e61f9a47"
down_revision = "c8f25b7e4d19"

COLUMNS = (
    "id", "model_id", "number", "job_id", "created_at", "purge_after", "purged_at",
    "weights_sha256", "statistics_sha256", "reservoir_sha256",
)  # fmt: skip
"""One by one: with `*`, the view would need the column that a downgrade drops."""


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.add_column("models", sa.Column("backbone", postgresql.JSONB))
    op.add_column("model_versions", sa.Column("features_sha256", sa.String))
    replace_view(features=True)


def replace_view(*, features: bool) -> None:
    """The view as it was, with one more file of a version or without."""
    of_version = [*COLUMNS, *(["features_sha256"] if features else [])]
    columns = ", ".join(f"version.{column}" for column in of_version)
    more = ", ('features', features_sha256)" if features else ""
    op.execute(
        f"""
        CREATE OR REPLACE VIEW derived_data AS
        WITH versions AS (
            SELECT {columns},
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
                {more}
            ) AS file (kind, name)
            WHERE file.name IS NOT NULL
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
            UNION ALL
            SELECT version.model_id, 'source_weights', offered.weights_uri, version.id,
                   version.number, version.job_id, version.created_at, NULL, NULL,
                   version.created_at + interval '1 microsecond'
            FROM version_registrations offered JOIN model_versions version USING (job_id)
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
        """  # noqa: S608  # nothing in it is from elsewhere
    )


def downgrade() -> None:
    """The backbones of models are forgotten, and which files hold features: earlier code takes them
    for orphans, and deletes them. The models' recipe is none that it knows."""
    op.execute("SET LOCAL lock_timeout = '5s'")
    replace_view(features=False)
    op.drop_column("model_versions", "features_sha256")
    op.drop_column("models", "backbone")
    op.execute("UPDATE models SET recipe = NULL WHERE recipe IN ('worker.recipes:head', "
               "'worker.networks.recipes:head')")  # fmt: skip
