"""certificates: signed statements about completed requests

Safe while serving: new tables only.
"""

import sqlalchemy as sa
from alembic import op

revision = "8e2b6d4c0f17"
down_revision = "9a27c4e8d031"


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
    op.create_table(
        "certified_checkpoints",
        sa.Column("size", sa.BigInteger, sa.ForeignKey("audit_checkpoints.size"), primary_key=True),
    )
    for trigger, moment, level in (
        ("append_only", "BEFORE UPDATE OR DELETE", "ROW"),
        ("append_only_whole", "BEFORE TRUNCATE", "STATEMENT"),
    ):
        op.execute(
            f"CREATE TRIGGER {trigger} {moment} ON certificates FOR EACH {level} "
            "EXECUTE FUNCTION refuse_to_change_audit_events()"
        )
    op.execute("REVOKE UPDATE, DELETE, TRUNCATE ON certificates FROM lethe_app")


def downgrade() -> None:
    """The certificates are lost; the audit trail keeps their digests."""
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_table("certified_checkpoints")
    op.drop_table("certificates")
