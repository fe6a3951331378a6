"""the reports of datasets forget the sample ids of their examples

The position of a row is enough to find it. Safe while serving: a few rows, changed once. There is
no way back, and the version before reads a report without ids.
"""

from alembic import op

revision = "c17e5a90d3b8"
down_revision = "d81c3f70a5e9"


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.execute(
        """
        UPDATE datasets SET report = jsonb_set(report, '{bad_rows}', (
            SELECT coalesce(jsonb_object_agg(kind, jsonb_set(fault, '{examples}', (
                SELECT coalesce(jsonb_agg(example - 'sample_id' ORDER BY place), '[]')
                FROM jsonb_array_elements(fault -> 'examples') WITH ORDINALITY AS e(example, place)
            ))), '{}')
            FROM jsonb_each(report -> 'bad_rows') AS f(kind, fault)
        ))
        WHERE jsonb_typeof(report -> 'bad_rows') = 'object'
        """
    )


def downgrade() -> None:
    pass
