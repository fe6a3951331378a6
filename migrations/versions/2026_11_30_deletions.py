"""models and datasets can be deleted: when they were, and when they were purged

Safe while serving: columns without defaults, checks on small tables, functions that allow more, and
a trigger, under a short lock. Earlier code deletes nothing.
"""

import sqlalchemy as sa
from alembic import op

revision = "b3d1f60a94c7"
down_revision = "5c0e8d7a21f6"

TABLES = ("datasets", "models", "version_registrations")
STATUSES = ("pending", "ready", "failed")


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    statuses(*STATUSES, "deleted")
    for table in ("datasets", "models"):
        for column in ("deleted_at", "purged_at"):
            op.add_column(table, sa.Column(column, sa.DateTime(timezone=True)))
    keep_definition(may_be_deleted=True)
    keep_beginning("'queued', 'pending', 'cancelled', 'deleted'")
    op.execute(
        f"""
        CREATE FUNCTION refuse_deleted() RETURNS trigger LANGUAGE plpgsql
        SET search_path = pg_catalog, {schema()}, pg_temp AS $$
        DECLARE
            found text;
        BEGIN
            -- Waits for whoever deletes the model, and sees what became of it: the statement that
            -- asks the model to forget may have seen it as it was before.
            SELECT status INTO found FROM {schema()}.models
            WHERE id = NEW.model_id FOR KEY SHARE;
            IF found = 'deleted' THEN
                RAISE EXCEPTION 'the model was deleted: % of % refused', TG_OP, TG_TABLE_NAME
                USING ERRCODE = 'object_not_in_prerequisite_state';
            END IF;
            RETURN NEW;
        END $$
        """  # noqa: S608  # the schema's name, quoted
    )
    op.execute(
        "CREATE TRIGGER of_a_model BEFORE INSERT ON deletion_targets "
        "FOR EACH ROW EXECUTE FUNCTION refuse_deleted()"
    )


def schema() -> str:
    return str(op.get_bind().scalar(sa.text("SELECT quote_ident(current_schema())")))


def statuses(*values: str) -> None:
    listed = ", ".join(f"'{value}'" for value in values)
    for table in TABLES:
        op.drop_constraint(f"{table}_status_check", table)
        op.create_check_constraint("status", table, f"status IN ({listed})")


def keep_definition(*, may_be_deleted: bool) -> None:
    """As in the migration `roles`; what is ready may be deleted, and stays so then."""
    settled = "OLD.status IN ('ready', 'deleted')" if may_be_deleted else "OLD.status = 'ready'"
    allowed = (
        "AND NOT (name = 'status' AND OLD.status = 'ready' AND NEW.status = 'deleted')"
        if may_be_deleted
        else ""
    )
    op.execute(
        f"""
        CREATE OR REPLACE FUNCTION keep_definition() RETURNS trigger LANGUAGE plpgsql
        SET search_path = pg_catalog, {schema()}, pg_temp AS $$
        BEGIN
            IF {settled} AND EXISTS (
                SELECT FROM unnest(TG_ARGV) AS given (name)
                WHERE to_jsonb(NEW) -> name IS DISTINCT FROM to_jsonb(OLD) -> name {allowed}
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


def keep_beginning(anybody: str) -> None:
    """As in the migration `roles`, with the statuses that are not the worker's alone."""
    op.execute(
        f"""
        CREATE OR REPLACE FUNCTION keep_beginning() RETURNS trigger LANGUAGE plpgsql
        SET search_path = pg_catalog, {schema()}, pg_temp AS $$
        BEGIN
            IF (CASE TG_OP WHEN 'INSERT' THEN
                NEW.status NOT IN ('queued', 'pending') OR EXISTS (
                    SELECT FROM unnest(TG_ARGV) AS given (name)
                    WHERE to_jsonb(NEW) ->> name IS NOT NULL
                )
            ELSE
                NEW.status <> OLD.status AND NEW.status NOT IN ({anybody})
                AND NOT pg_catalog.pg_has_role(current_user, 'lethe_worker', 'USAGE')
            END) AND NOT pg_catalog.pg_has_role(
                current_user, (SELECT relowner FROM pg_catalog.pg_class WHERE oid = TG_RELID),
                'USAGE'
            ) THEN
                RAISE EXCEPTION 'work begins in the queue, and only the worker says how it ends: '
                    '% of % refused', TG_OP, TG_TABLE_NAME
                USING ERRCODE = 'check_violation';
            END IF;
            RETURN NEW;
        END $$
        """  # noqa: S608  # words that stand here
    )


def downgrade() -> None:
    """What was deleted counts as failed: earlier code knows nothing better."""
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.execute("DROP TRIGGER of_a_model ON deletion_targets")
    op.execute("DROP FUNCTION refuse_deleted()")
    keep_definition(may_be_deleted=False)
    keep_beginning("'queued', 'pending', 'cancelled'")
    for table in ("datasets", "models"):
        op.execute(
            f"UPDATE {table} SET status = 'failed', failure = 'It was deleted.' "  # noqa: S608
            "WHERE status = 'deleted'"
        )
        for column in ("purged_at", "deleted_at"):
            op.drop_column(table, column)
    statuses(*STATUSES)
