"""requests wait for each other by default, and can be urgent

Safe while serving: columns that may be left out, and an index, made under a short lock. Earlier
code leaves them empty: what it stores is not held back. What waits at this moment goes into the
next job that can begin.

Of a model that was registered before, requests wait for each other no longer than its policy said
then: a policy that names no window is told that there is none. A script that registers such a model
again may still leave the window out.
"""

import sqlalchemy as sa
from alembic import op

revision = "7e41c9b0d35f"
down_revision = "b3d8e61f9a47"

AT_ONCE = """
UPDATE models
SET policy = jsonb_set(policy, '{batch}', coalesce(policy -> 'batch', '{}') || '{"window": "PT0S"}')
WHERE policy #>> '{batch,window}' IS NULL
"""


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.add_column(
        "deletion_requests",
        sa.Column("urgent", sa.Boolean, nullable=False, server_default=sa.text("false")),
    )
    op.add_column("deletion_targets", sa.Column("waits_until", sa.DateTime(timezone=True)))
    op.create_index(
        "deletion_targets_waiting_idx",
        "deletion_targets",
        ["model_id", sa.text("waits_until NULLS FIRST")],
        postgresql_where=sa.text("status = 'pending'"),
    )
    op.execute(AT_ONCE)


def downgrade() -> None:
    """Earlier code knows no window that is not named."""
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.execute(AT_ONCE)
    op.drop_index("deletion_targets_waiting_idx", "deletion_targets")
    op.drop_column("deletion_targets", "waits_until")
    op.drop_column("deletion_requests", "urgent")
