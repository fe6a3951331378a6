"""certificates: signed statements about completed requests

Safe while serving: a new table only.
"""

import sqlalchemy as sa
from alembic import op

revision = "8e2b6d4c0f17"
down_revision = "3d9e5f60a1c7"


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.create_table(
        "certificates",
        sa.Column("request_id", sa.Uuid, sa.ForeignKey("deletion_requests.id"), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("envelope", sa.String, nullable=False),
        sa.Column("payload_sha256", sa.String, nullable=False),
        sa.Column(
            "issued_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False
        ),
    )
    op.execute(
        """
        CREATE FUNCTION refuse_to_change_certificates() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION 'certificates stay as they are: % refused', TG_OP;
        END $$
        """
    )
    op.execute(
        """
        CREATE TRIGGER unchanged BEFORE UPDATE OR DELETE ON certificates
        FOR EACH ROW EXECUTE FUNCTION refuse_to_change_certificates()
        """
    )


def downgrade() -> None:
    """The certificates are lost; the audit trail keeps their digests."""
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_table("certificates")
    op.execute("DROP FUNCTION refuse_to_change_certificates()")
