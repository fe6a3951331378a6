"""roles: two for the service, with rights to columns; functions that no other table can mislead

Not while serving: the worker of before needs temporary tables. `lethe_app` becomes a member of
`lethe_api` and `lethe_worker` and has no other rights; what those may do is in
`migrations/grants.py`, and is granted when the newest schema is reached. Where the owner of the
tables may not create roles, a superuser runs `migrations/roles.sql` first: docs/operators.md,
"Database roles".
"""

from collections.abc import Mapping, Sequence

import sqlalchemy as sa
from alembic import op

revision = "7e20b5c91fd4"
down_revision = "f20c6b8d714a"

BEGUN = {
    "jobs": ["verdict", "config", "environment", "started_at", "finished_at", "forgotten_at"],
    "models": ["ready_at"],
    "datasets": ["ready_at", "report", "files"],
}
"""What a new row does not have yet."""

DEFINED = {
    "datasets": ["name", "uri", "definition", "tombstone_key", "status"],
    "models": [
        "name", "dataset_id", "weights_uri", "architecture", "head", "preprocessing", "recipe",
        "policy", "status",
    ],
}  # fmt: skip
"""What stays as it is once a dataset or a model is ready."""

RESULTS = ("rounds", "audit_tests", "evaluations", "alignment_scores")
"""What a job found. Only while it runs may that change."""

DESTROYED = {"decisions": ["ground"], "deletion_requests": ["subject_ref", "reason"]}
"""What may be destroyed, but not rewritten."""

CHANGEABLE = ["purge_after", "purged_at", "reservoir_sha256", "status", "superseded_at"]
"""The columns of a version that may change, as in the migration that made `keep_versions`."""

SAFE = "SET search_path = pg_catalog, {schema}, pg_temp"
"""Temporary objects come last: named first, or not at all, they would come before all others."""

IS_OWNER = """pg_catalog.pg_has_role(
    current_user, (SELECT relowner FROM pg_catalog.pg_class WHERE oid = TG_RELID), 'USAGE')"""


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    schema = current_schema()
    roles()
    close(schema)
    functions(schema, SAFE.format(schema=schema))
    stamps(schema)
    settled(schema)
    staging()


def current_schema() -> str:
    return str(op.get_bind().scalar(sa.text("SELECT quote_ident(current_schema())")))


def roles() -> None:
    """Made by `migrations/roles.sql`, or here, if the owner may."""
    op.execute(
        """
        DO $$
        DECLARE
            wanted text;
        BEGIN
            FOREACH wanted IN ARRAY ARRAY['lethe_api', 'lethe_worker'] LOOP
                IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = wanted) THEN
                    EXECUTE format('CREATE ROLE %I NOLOGIN', wanted);
                END IF;
                IF NOT pg_catalog.pg_has_role('lethe_app', wanted, 'USAGE') THEN
                    EXECUTE format('GRANT %I TO lethe_app', wanted);
                END IF;
            END LOOP;
        EXCEPTION WHEN insufficient_privilege THEN
            RAISE EXCEPTION USING MESSAGE =
                'the roles of the service are missing, and ' || current_user || ' may not create '
                'them. Run migrations/roles.sql as a superuser, then the migrations again: '
                'docs/operators.md, "Database roles"';
        END $$
        """
    )


def close(schema: str) -> None:
    """Take back what was granted on everything, and what Postgres grants to everyone."""
    op.execute(f"REVOKE ALL ON ALL TABLES IN SCHEMA {schema} FROM lethe_app")
    op.execute(f"REVOKE ALL ON SCHEMA {schema} FROM lethe_app")
    op.execute(f"ALTER DEFAULT PRIVILEGES IN SCHEMA {schema} REVOKE ALL ON TABLES FROM lethe_app")
    op.execute("ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC")


def functions(schema: str, safe: str) -> None:
    """The functions of earlier migrations; those that name a table name its schema, too.

    `hmac_sha256` needs no path: its body was parsed when it was made.
    """
    op.execute(f"ALTER FUNCTION {schema}.refuse_to_change_audit_events() {safe}")
    op.execute(f"ALTER FUNCTION {schema}.refuse_unlawful_step() {safe}")
    append_to_log(safe, f"{schema}.audit_leaves")
    keep_versions(safe, f"{schema}.model_versions")


def append_to_log(safe: str, leaves: str) -> None:
    op.execute(
        f"""
        CREATE OR REPLACE FUNCTION append_to_log() RETURNS trigger
        LANGUAGE plpgsql SECURITY DEFINER {safe} AS $$
        BEGIN
            PERFORM pg_advisory_xact_lock(x'1E7F10'::int);
            INSERT INTO {leaves} (position, event_id)
            SELECT coalesce(max(position) + 1, 0), NEW.id FROM {leaves};
            RETURN NULL;
        END $$
        """  # noqa: S608 (the schema's name, quoted)
    )


def keep_versions(safe: str, versions: str) -> None:
    changeable = quoted(CHANGEABLE)
    op.execute(
        f"""
        CREATE OR REPLACE FUNCTION keep_versions() RETURNS trigger LANGUAGE plpgsql {safe} AS $$
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
                SELECT FROM {versions} version
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


def stamps(schema: str) -> None:
    """An event is of the moment at which it is written, and of whoever writes it."""
    op.execute(
        f"""
        CREATE FUNCTION stamp_event() RETURNS trigger
        LANGUAGE plpgsql {SAFE.format(schema=schema)} AS $$
        BEGIN
            IF NEW.actor IN ('api', 'worker')
               AND pg_has_role(current_user, 'lethe_' || NEW.actor, 'USAGE') THEN
                NEW.at := clock_timestamp();
            ELSIF NOT {IS_OWNER} THEN
                RAISE EXCEPTION '% may not write events of the actor %', current_user, NEW.actor
                USING ERRCODE = 'insufficient_privilege';
            END IF;
            RETURN NEW;
        END $$
        """
    )
    op.execute(
        "CREATE TRIGGER stamped BEFORE INSERT ON audit_events "
        "FOR EACH ROW EXECUTE FUNCTION stamp_event()"
    )


def settled(schema: str) -> None:
    """What is over does not change any more. The owner may, for the migrations to come."""
    for name, says, refused in (
        (
            "keep_beginning",
            "work begins in the queue, and only the worker says how it ends",
            """CASE TG_OP WHEN 'INSERT' THEN
                NEW.status NOT IN ('queued', 'pending') OR EXISTS (
                    SELECT FROM unnest(TG_ARGV) AS given (name)
                    WHERE to_jsonb(NEW) ->> name IS NOT NULL
                )
            ELSE
                NEW.status <> OLD.status AND NEW.status NOT IN ('queued', 'pending', 'cancelled')
                AND NOT pg_has_role(current_user, 'lethe_worker', 'USAGE')
            END""",
        ),
        (
            "keep_definition",
            "what a ready one is does not change",
            """OLD.status = 'ready' AND EXISTS (
                SELECT FROM unnest(TG_ARGV) AS given (name)
                WHERE to_jsonb(NEW) -> name IS DISTINCT FROM to_jsonb(OLD) -> name
            )""",
        ),
        (
            "keep_what_remains",
            "what it holds can be destroyed, but not rewritten",
            """EXISTS (
                SELECT FROM unnest(TG_ARGV) AS given (name)
                WHERE to_jsonb(NEW) ->> name IS NOT NULL
                  AND to_jsonb(NEW) -> name IS DISTINCT FROM to_jsonb(OLD) -> name
            )""",
        ),
        (
            "keep_ended_jobs",
            "a job that has ended stays as it is",
            """OLD.status IN ('completed', 'failed', 'cancelled') AND NEW.status = OLD.status AND (
                to_jsonb(NEW) - 'forgotten_at' <> to_jsonb(OLD) - 'forgotten_at'
                OR OLD.forgotten_at IS NOT NULL AND NEW.forgotten_at IS DISTINCT FROM
                   OLD.forgotten_at
            )""",
        ),
        (
            "keep_results",
            "only while a job runs do its results change",
            f"""NOT EXISTS (
                SELECT FROM {schema}.jobs job WHERE job.status = 'running'
                AND job.id = CASE TG_OP WHEN 'DELETE' THEN OLD.job_id ELSE NEW.job_id END
            )""",
        ),
        (
            "keep_tombstones",
            "a sample is forgotten by a job of its model that runs, or whose outcome is accepted",
            f"""EXISTS (
                SELECT FROM added WHERE NOT EXISTS (
                    SELECT FROM {schema}.jobs job
                    WHERE job.id = added.job_id AND job.model_id = added.model_id
                      AND job.kind = 'unlearn' AND job.status IN ('running', 'completed')
                )
            )""",  # noqa: S608
        ),
    ):
        op.execute(
            f"""
            CREATE FUNCTION {name}() RETURNS trigger
            LANGUAGE plpgsql {SAFE.format(schema=schema)} AS $$
            BEGIN
                IF ({refused}) AND NOT {IS_OWNER} THEN
                    RAISE EXCEPTION '{says}: % of % refused', TG_OP, TG_TABLE_NAME
                    USING ERRCODE = 'check_violation';
                END IF;
                RETURN CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
            END $$
            """
        )
    for table, columns in BEGUN.items():
        keep(table, "INSERT OR UPDATE OF status", f"keep_beginning({quoted(columns)})", "begun")
    for table, columns in DEFINED.items():
        keep(table, "UPDATE", f"keep_definition({quoted(columns)})")
    for table, columns in DESTROYED.items():
        keep(table, f"UPDATE OF {', '.join(columns)}", f"keep_what_remains({quoted(columns)})")
    keep("jobs", "UPDATE", "keep_ended_jobs()")
    for table in RESULTS:
        keep(table, "INSERT OR UPDATE OR DELETE", "keep_results()")
    op.execute(
        "CREATE TRIGGER kept AFTER INSERT ON tombstones REFERENCING NEW TABLE AS added "
        "FOR EACH STATEMENT EXECUTE FUNCTION keep_tombstones()"
    )


def keep(table: str, moment: str, function: str, name: str = "kept") -> None:
    op.execute(
        f"CREATE TRIGGER {name} BEFORE {moment} ON {table} FOR EACH ROW EXECUTE FUNCTION {function}"
    )


def quoted(values: Sequence[str]) -> str:
    return ", ".join(f"'{value}'" for value in values)


def staging() -> None:
    """Where rows of a dataset stand within one transaction; temporary tables are no more."""
    for table, columns in STAGED.items():
        op.create_table(
            table,
            *[sa.Column(name, kind) for name, kind in columns.items()],
            prefixes=["UNLOGGED"],
        )


STAGED: Mapping[str, Mapping[str, sa.types.TypeEngine[object]]] = {
    "staged_samples": {
        "sample_id": sa.String(), "position": sa.BigInteger(), "label": sa.BigInteger(),
        "split": sa.String(), "usable": sa.Boolean(),
    },
    "staged_positions": {"sample_id": sa.String(), "position": sa.BigInteger()},
}  # fmt: skip


def downgrade() -> None:
    """`lethe_app` gets back its rights to all tables, and everyone may create temporary ones. The
    roles stay: they may have been granted to others. So do the paths of the functions."""
    op.execute("SET LOCAL lock_timeout = '5s'")
    schema = current_schema()
    for table in STAGED:
        op.drop_table(table)
    for table in (*DEFINED, *DESTROYED, "jobs", *RESULTS, "tombstones"):
        op.execute(f"DROP TRIGGER kept ON {table}")
    for table in BEGUN:
        op.execute(f"DROP TRIGGER begun ON {table}")
    op.execute("DROP TRIGGER stamped ON audit_events")
    for name in (
        "stamp_event", "keep_beginning", "keep_definition", "keep_what_remains", "keep_ended_jobs",
        "keep_results", "keep_tombstones",
    ):  # fmt: skip
        op.execute(f"DROP FUNCTION {name}()")
    for role in ("lethe_api", "lethe_worker"):
        op.execute(f"REVOKE ALL ON ALL TABLES IN SCHEMA {schema} FROM {role}")
        op.execute(f"REVOKE ALL ON ALL FUNCTIONS IN SCHEMA {schema} FROM {role}")
        op.execute(f"REVOKE ALL ON SCHEMA {schema} FROM {role}")
    open_again(schema)


def open_again(schema: str) -> None:
    everything = "SELECT, INSERT, UPDATE, DELETE"
    op.execute(f"GRANT USAGE ON SCHEMA {schema} TO lethe_app")
    op.execute(f"GRANT {everything} ON ALL TABLES IN SCHEMA {schema} TO lethe_app")
    op.execute(
        f"ALTER DEFAULT PRIVILEGES IN SCHEMA {schema} GRANT {everything} ON TABLES TO lethe_app"
    )
    op.execute("REVOKE INSERT, UPDATE, DELETE ON alembic_version FROM lethe_app")
    for table in (
        "audit_events", "audit_leaves", "audit_nodes", "audit_checkpoints", "audit_anchors",
        "signing_keys", "certificates",
    ):  # fmt: skip
        op.execute(f"REVOKE UPDATE, DELETE, TRUNCATE ON {table} FROM lethe_app")
    op.execute("REVOKE INSERT ON audit_leaves FROM lethe_app")
    op.execute("ALTER DEFAULT PRIVILEGES GRANT EXECUTE ON FUNCTIONS TO PUBLIC")
    op.execute(f"GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA {schema} TO PUBLIC")
    op.execute(
        "DO $$ BEGIN EXECUTE format('GRANT TEMPORARY ON DATABASE %I TO PUBLIC', "
        "current_database()); END $$"
    )
