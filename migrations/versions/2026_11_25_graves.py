"""keyed tombstones, commitments to the named ids, and no ids beyond the end of a request

Not while serving: tombstones lose their sample ids, which earlier code reads.
"""

import secrets

import sqlalchemy as sa
from alembic import op

revision = "5b1e7c94d2f0"
down_revision = "8e2b6d4c0f17"


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    # One expression, so that the planner can inline it. `decode` returns the bytes of the text, and
    # unlike `convert_to` it may be called in an immutable function.
    op.execute(
        r"""
        CREATE FUNCTION hmac_sha256("inner" bytea, "outer" bytea, message text) RETURNS bytea
        LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN
            sha256("outer" || sha256("inner" || decode(replace(message, '\', '\\'), 'escape')))
        """
    )
    give_keys()
    bury_ids()
    op.create_table(
        "request_keys",
        sa.Column("request_id", sa.Uuid, sa.ForeignKey("deletion_requests.id"), primary_key=True),
        sa.Column("key", sa.LargeBinary, nullable=False),
        sa.Column("entries", sa.LargeBinary, nullable=False),
    )
    op.add_column("deletion_requests", sa.Column("commitment", sa.String))
    op.add_column("deletion_requests", sa.Column("shredded_at", sa.DateTime(timezone=True)))
    op.create_index(
        "deletion_requests_linked_idx",
        "deletion_requests",
        ["finished_at"],
        postgresql_where=sa.text("shredded_at IS NULL AND finished_at IS NOT NULL"),
    )
    op.alter_column("decisions", "ground", nullable=True)
    op.add_column(
        "models",
        sa.Column("suppressed_samples", sa.Integer, nullable=False, server_default=sa.text("0")),
    )
    op.alter_column("models", "suppressed_samples", server_default=None)
    op.execute(
        "DELETE FROM request_samples USING deletion_requests request "
        "WHERE request.id = request_id AND request.status IN ('completed', 'cancelled', 'refused')"
    )


def give_keys() -> None:
    """A random key for each dataset, stored as the two blocks that HMAC derives from it."""
    op.add_column("datasets", sa.Column("tombstone_key", sa.LargeBinary))
    connection = op.get_bind()
    for dataset_id in connection.scalars(sa.text("SELECT id FROM datasets")).all():
        key = secrets.token_bytes(32).ljust(64, b"\0")
        blocks = bytes(byte ^ pad for pad in (0x36, 0x5C) for byte in key)
        connection.execute(
            sa.text("UPDATE datasets SET tombstone_key = :key WHERE id = :id"),
            {"key": blocks, "id": dataset_id},
        )
    op.alter_column("datasets", "tombstone_key", nullable=False)


def bury_ids() -> None:
    """Digests replace ids, in a new table, so that no old row keeps an id until a vacuum."""
    make_anew(
        sa.Column("digest", sa.LargeBinary, primary_key=True),
        """
        INSERT INTO tombstones (model_id, digest, job_id, forgotten_at)
        SELECT model_id,
               hmac_sha256(substr(tombstone_key, 1, 64), substr(tombstone_key, 65, 64), sample_id),
               job_id, forgotten_at
        FROM old_tombstones
        JOIN models ON models.id = model_id JOIN datasets ON datasets.id = dataset_id
        """,
    )


def make_anew(name: sa.Column[bytes] | sa.Column[str], filling: str) -> None:
    op.execute("CREATE TEMPORARY TABLE old_tombstones ON COMMIT DROP AS TABLE tombstones")
    op.drop_table("tombstones")
    op.create_table(
        "tombstones",
        sa.Column("model_id", sa.Uuid, sa.ForeignKey("models.id"), primary_key=True),
        name,
        sa.Column("job_id", sa.Uuid, sa.ForeignKey("jobs.id"), nullable=False),
        sa.Column(
            "forgotten_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False
        ),
    )
    op.execute(filling)
    op.create_index("tombstones_job_id_idx", "tombstones", ["job_id"])
    op.execute("DROP TABLE old_tombstones")


def downgrade() -> None:
    """Tombstones get back the ids of samples that are still indexed; other ids are lost, and so are
    the ids in ended requests. Shredded grounds become empty."""
    op.execute("SET LOCAL lock_timeout = '5s'")
    make_anew(
        sa.Column("sample_id", sa.String, primary_key=True),
        """
        INSERT INTO tombstones (model_id, sample_id, job_id, forgotten_at)
        SELECT model_id, sample_id, job_id, forgotten_at
        FROM old_tombstones
        JOIN models ON models.id = model_id JOIN datasets ON datasets.id = models.dataset_id
        JOIN samples ON samples.dataset_id = datasets.id AND digest
            = hmac_sha256(substr(tombstone_key, 1, 64), substr(tombstone_key, 65, 64), sample_id)
        """,
    )
    op.drop_column("models", "suppressed_samples")
    op.execute("UPDATE decisions SET ground = '' WHERE ground IS NULL")
    op.alter_column("decisions", "ground", nullable=False)
    op.drop_index("deletion_requests_linked_idx", "deletion_requests")
    op.drop_column("deletion_requests", "shredded_at")
    op.drop_column("deletion_requests", "commitment")
    op.drop_table("request_keys")
    op.drop_column("datasets", "tombstone_key")
    op.execute("DROP FUNCTION hmac_sha256")
