"""purge: when old versions' files are deleted, what is derived from data, and fixed versions

Safe while serving: columns without a default, a view, triggers; checks and indexes on small tables,
under a short lock. Already superseded versions are due 72 hours after they were superseded.
"""

import sqlalchemy as sa
from alembic import op

revision = "a41c7be09d32"
down_revision = "5b1e7c94d2f0"

KINDS = ["index_dataset", "register_model", "train_references", "unlearn", "estimate"]
OPEN_JOB = "status IN ('queued', 'running')"
TO_PURGE = "status = 'superseded' AND purged_at IS NULL"
MOMENTS = (
    ("jobs", "forgotten_at"),
    ("model_versions", "purge_after"),
    ("model_versions", "purged_at"),
)
CHANGEABLE = {"superseded_at", "purge_after", "purged_at", "status", "reservoir_sha256"}
"""The columns of a version that may change."""


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    job_kinds(*KINDS, "purge")
    one_open_job_per_model(f"{OPEN_JOB} AND kind NOT IN ('estimate', 'purge')")
    for table, column in MOMENTS:
        op.add_column(table, sa.Column(column, sa.DateTime(timezone=True)))
    op.execute(
        "UPDATE jobs SET forgotten_at = (SELECT min(tombstones.forgotten_at) FROM tombstones "
        "WHERE tombstones.job_id = jobs.id) WHERE kind = 'unlearn' AND status = 'completed'"
    )
    op.execute(
        "UPDATE model_versions SET purge_after = superseded_at + interval '72 hours' "
        "WHERE superseded_at IS NOT NULL"
    )
    op.create_check_constraint(
        "purge_after", "model_versions", "status <> 'superseded' OR purge_after IS NOT NULL"
    )
    op.create_check_constraint(
        "purged_at", "model_versions", "purged_at IS NULL OR status = 'superseded'"
    )
    op.create_index(
        "model_versions_to_purge_idx",
        "model_versions",
        ["purge_after"],
        postgresql_where=sa.text(TO_PURGE),
    )
    op.create_index(
        "jobs_forgotten_idx",
        "jobs",
        ["model_id", "forgotten_at"],
        postgresql_where=sa.text("forgotten_at IS NOT NULL"),
    )
    create_view()
    keep_versions()


def create_view() -> None:
    """A version respects every job of its model up to a moment: the champion, all of them; a former
    champion, those before it was superseded; any other, those before it was created."""
    op.execute(
        """
        CREATE VIEW derived_data AS
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
        """
    )


def keep_versions() -> None:
    """A superseded version cannot be revived by editing a row, deleting one, or adding another with
    its weights."""
    changeable = ", ".join(f"'{column}'" for column in sorted(CHANGEABLE))
    op.execute(
        f"""
        CREATE FUNCTION keep_versions() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF TG_OP IN ('DELETE', 'TRUNCATE') THEN
                RAISE EXCEPTION 'model_versions keeps its rows: % refused', TG_OP
                USING ERRCODE = 'check_violation';
            ELSIF TG_OP = 'INSERT' THEN
                NULL;
            ELSIF OLD.status = 'superseded' AND (
                to_jsonb(NEW) - 'purged_at' <> to_jsonb(OLD) - 'purged_at'
                OR OLD.purged_at IS NOT NULL AND NEW.purged_at IS DISTINCT FROM OLD.purged_at
            ) THEN
                RAISE EXCEPTION
                    'a superseded version stays as it is, but for being marked as purged, once'
                USING ERRCODE = 'check_violation';
            ELSIF to_jsonb(NEW) - ARRAY[{changeable}] <> to_jsonb(OLD) - ARRAY[{changeable}] THEN
                RAISE EXCEPTION 'what a version is does not change'
                USING ERRCODE = 'check_violation';
            END IF;
            IF NEW.status <> 'superseded' AND EXISTS (
                SELECT FROM model_versions version
                WHERE version.model_id = NEW.model_id AND version.status = 'superseded'
                  AND version.weights_sha256 = NEW.weights_sha256 AND version.id <> NEW.id
            ) THEN
                RAISE EXCEPTION 'these weights were superseded: they are never served again'
                USING ERRCODE = 'check_violation';
            END IF;
            RETURN NEW;
        END $$
        """
    )
    op.execute(
        "CREATE TRIGGER keep_versions BEFORE INSERT OR UPDATE OR DELETE ON model_versions "
        "FOR EACH ROW EXECUTE FUNCTION keep_versions()"
    )
    op.execute(
        "CREATE TRIGGER keep_versions_whole BEFORE TRUNCATE ON model_versions "
        "FOR EACH STATEMENT EXECUTE FUNCTION keep_versions()"
    )


def job_kinds(*kinds: str) -> None:
    listed = ", ".join(f"'{kind}'" for kind in kinds)
    op.drop_constraint("jobs_kind_check", "jobs")
    op.create_check_constraint("kind", "jobs", f"kind IN ({listed})")


def one_open_job_per_model(condition: str) -> None:
    op.drop_index("jobs_one_open_per_model_idx", "jobs")
    op.create_index(
        "jobs_one_open_per_model_idx",
        "jobs",
        ["model_id"],
        unique=True,
        postgresql_where=sa.text(condition),
    )


def downgrade() -> None:
    """The records of purges are lost, but for their audit events; so is when they are due."""
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.execute("DROP TRIGGER keep_versions_whole ON model_versions")
    op.execute("DROP TRIGGER keep_versions ON model_versions")
    op.execute("DROP FUNCTION keep_versions()")
    op.execute("DROP VIEW derived_data")
    op.drop_index("jobs_forgotten_idx", "jobs")
    op.drop_index("model_versions_to_purge_idx", "model_versions")
    op.drop_constraint("model_versions_purged_at_check", "model_versions")
    op.drop_constraint("model_versions_purge_after_check", "model_versions")
    for table, column in MOMENTS:
        op.drop_column(table, column)
    op.execute("DELETE FROM jobs WHERE kind = 'purge'")
    one_open_job_per_model(f"{OPEN_JOB} AND kind <> 'estimate'")
    job_kinds(*KINDS)
