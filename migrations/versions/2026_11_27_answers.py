"""the answer to a repeated submission is made of the request: only what changes later is kept

Not while serving: earlier code reads the whole answer. Reference and reason, which the answer
repeated, are now in `deletion_requests` only.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "f20c6b8d714a"
down_revision = "e7a9316f52c8"


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.add_column("idempotency_keys", sa.Column("asked", JSONB))
    op.execute(
        """
        UPDATE idempotency_keys SET asked = (
            SELECT jsonb_agg(
                jsonb_build_array(
                    target->'model', target->'already_forgotten', target->'not_trained_on')
                ORDER BY target->>'model')
            FROM jsonb_array_elements((response->>'body')::jsonb->'targets') AS target)
        """
    )
    op.alter_column("idempotency_keys", "asked", nullable=False)
    op.drop_column("idempotency_keys", "response")


def downgrade() -> None:
    """A repeated submission gets an equal answer, with its members in another order."""
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.add_column("idempotency_keys", sa.Column("response", JSONB))
    op.execute(
        """
        UPDATE idempotency_keys SET response = jsonb_build_object('body', (
            SELECT (
                to_jsonb(request) - 'dataset_id' || jsonb_build_object(
                    'status', CASE WHEN is_open THEN 'pending' ELSE 'completed' END,
                    'finished_at', CASE WHEN NOT is_open THEN request.created_at END,
                    'overdue_at', NULL, 'shredded_at', NULL, 'dataset', datasets.name,
                    'targets', targets, 'decisions', '[]'::jsonb)
            )::text
            FROM deletion_requests AS request
            JOIN datasets ON datasets.id = request.dataset_id
            CROSS JOIN LATERAL (
                SELECT bool_or((counts->>1)::int < request.samples) AS is_open,
                       jsonb_agg(jsonb_build_object(
                           'model', counts->0, 'already_forgotten', counts->1,
                           'not_trained_on', counts->2, 'job_id', NULL, 'result', NULL,
                           'failure', NULL, 'status',
                           CASE WHEN (counts->>1)::int < request.samples THEN 'pending'
                                ELSE 'completed' END)) AS targets
                FROM jsonb_array_elements(asked) AS counts
            ) AS each
            WHERE request.id = request_id))
        """
    )
    op.alter_column("idempotency_keys", "response", nullable=False)
    op.drop_column("idempotency_keys", "asked")
