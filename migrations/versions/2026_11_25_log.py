"""log: positions, tree and checkpoints of the audit trail, and a role that cannot change it

The role that runs this owns the tables. The service's processes log in as `lethe_app` or a member
of it. If the role does not exist, it is created here without the right to log in:
docs/operators.md, "Database roles".

Writes to the audit trail wait while its events get their positions: seconds per million.
"""

import sqlalchemy as sa
from alembic import op

revision = "9a27c4e8d031"
down_revision = "3d9e5f60a1c7"

APPEND_ONLY = (
    "audit_leaves", "audit_nodes", "audit_checkpoints", "audit_anchors", "signing_keys",
)  # fmt: skip


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.create_table(
        "audit_leaves",
        sa.Column("position", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column(
            "event_id",
            sa.BigInteger,
            sa.ForeignKey("audit_events.id"),
            nullable=False,
            unique=True,
        ),
    )
    op.create_table(
        "audit_nodes",
        sa.Column("level", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("index", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("hash", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "audit_checkpoints",
        sa.Column("size", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("note", sa.String, nullable=False),
        created_at("created_at"),
    )
    op.create_table(
        "audit_anchors",
        sa.Column("size", sa.BigInteger, sa.ForeignKey("audit_checkpoints.size"), primary_key=True),
        sa.Column("kind", sa.String, primary_key=True),
        sa.Column("receipt", sa.LargeBinary),
        created_at("anchored_at"),
        sa.CheckConstraint("kind IN ('directory', 'webhook', 'rfc3161')", "kind"),
    )
    op.create_table(
        "signing_keys",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("public_key", sa.LargeBinary, nullable=False, unique=True),
        created_at("introduced_at"),
    )
    positions()
    for table in APPEND_ONLY:
        op.execute(
            f"CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON {table} "
            "FOR EACH ROW EXECUTE FUNCTION refuse_to_change_audit_events()"
        )
        op.execute(
            f"CREATE TRIGGER append_only_whole BEFORE TRUNCATE ON {table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION refuse_to_change_audit_events()"
        )
    op.execute(
        """
        CREATE OR REPLACE FUNCTION refuse_to_change_audit_events() RETURNS trigger
        LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION '% is append-only: % refused', TG_TABLE_NAME, TG_OP;
        END $$
        """
    )
    roles()


def created_at(name: str) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False)


def positions() -> None:
    """Events get their position at the end of their transaction, one transaction at a time.

    A transaction that holds the lock waits for no other, so there is no deadlock. It holds the lock
    until it has committed, so positions follow the order of commits, without gaps.
    """
    op.execute("LOCK TABLE audit_events IN SHARE ROW EXCLUSIVE MODE")
    op.execute(
        "INSERT INTO audit_leaves (position, event_id) "
        "SELECT row_number() OVER (ORDER BY id) - 1, id FROM audit_events"
    )
    op.execute(
        """
        CREATE FUNCTION append_to_log() RETURNS trigger
        LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
        BEGIN
            PERFORM pg_advisory_xact_lock(x'1E7F10'::int);
            INSERT INTO audit_leaves (position, event_id)
            SELECT coalesce(max(position) + 1, 0), NEW.id FROM audit_leaves;
            RETURN NULL;
        END $$
        """
    )
    op.execute(
        "CREATE CONSTRAINT TRIGGER appended_to_log AFTER INSERT ON audit_events "
        "DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION append_to_log()"
    )


def roles() -> None:
    """The rights of `lethe_app`: all changes to rows, except in the trail, where it may only add.

    The trigger adds the positions with the owner's rights.
    """
    op.execute(
        """
        DO $$ BEGIN
            IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'lethe_app') THEN
                CREATE ROLE lethe_app NOLOGIN;
            END IF;
        EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;
        END $$
        """
    )
    op.execute(
        """
        DO $$ BEGIN
            EXECUTE format('GRANT USAGE ON SCHEMA %I TO lethe_app', current_schema());
            EXECUTE format(
                'GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA %I TO lethe_app',
                current_schema()
            );
            EXECUTE format(
                'ALTER DEFAULT PRIVILEGES IN SCHEMA %I '
                'GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO lethe_app', current_schema()
            );
        END $$
        """
    )
    op.execute("REVOKE INSERT, UPDATE, DELETE ON alembic_version FROM lethe_app")
    for table in ("audit_events", *APPEND_ONLY):
        op.execute(f"REVOKE UPDATE, DELETE, TRUNCATE ON {table} FROM lethe_app")
    op.execute("REVOKE INSERT ON audit_leaves FROM lethe_app")


def downgrade() -> None:
    """The role stays: it may have been granted to others."""
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.execute("DROP TRIGGER appended_to_log ON audit_events")
    op.execute("DROP FUNCTION append_to_log()")
    for table in (
        "audit_anchors", "audit_checkpoints", "audit_nodes", "audit_leaves", "signing_keys"
    ):  # fmt: skip
        op.drop_table(table)
    op.execute(
        """
        DO $$ BEGIN
            EXECUTE format(
                'ALTER DEFAULT PRIVILEGES IN SCHEMA %I '
                'REVOKE SELECT, INSERT, UPDATE, DELETE ON TABLES FROM lethe_app', current_schema()
            );
            EXECUTE format(
                'REVOKE ALL ON ALL TABLES IN SCHEMA %I FROM lethe_app', current_schema()
            );
            EXECUTE format('REVOKE ALL ON SCHEMA %I FROM lethe_app', current_schema());
        END $$
        """
    )
