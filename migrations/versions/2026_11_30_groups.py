"""the group of each sample, as a keyed digest, and what every reference model says of a sample

Safe while serving: earlier code leaves the columns empty, and a dataset gets its key here. The
table of the index is locked against writing while it is built: indexing and erasing wait.
"""

import secrets

import sqlalchemy as sa
from alembic import op

revision = "4be9a1d70c52"
down_revision = "c17e5a90d3b8"

BLOCK, INNER, OUTER = 64, 0x36, 0x5C


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.add_column("datasets", sa.Column("group_key", sa.LargeBinary))
    connection = op.get_bind()
    for (each,) in connection.execute(sa.text("SELECT id FROM datasets")).all():
        connection.execute(
            sa.text("UPDATE datasets SET group_key = :key WHERE id = :id"),
            {"key": _new_key(), "id": each},
        )
    op.add_column("samples", sa.Column("group_digest", sa.LargeBinary))
    op.create_index(
        "samples_by_group_idx",
        "samples",
        ["dataset_id", "group_digest"],
        postgresql_where=sa.text("group_digest IS NOT NULL"),
    )
    op.add_column("staged_samples", sa.Column("group_digest", sa.LargeBinary))
    op.add_column("membership_statistics", sa.Column("scores", sa.LargeBinary))
    op.add_column("membership_statistics", sa.Column("seen_by", sa.BigInteger))


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_column("membership_statistics", "seen_by")
    op.drop_column("membership_statistics", "scores")
    op.drop_column("staged_samples", "group_digest")
    op.drop_index("samples_by_group_idx", "samples")
    op.drop_column("samples", "group_digest")
    op.drop_column("datasets", "group_key")


def _new_key() -> bytes:
    key = secrets.token_bytes(32).ljust(BLOCK, b"\0")
    return bytes(byte ^ pad for pad in (INNER, OUTER) for byte in key)
