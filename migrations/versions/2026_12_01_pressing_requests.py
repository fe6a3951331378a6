"""a job that unlearns may be open beside one that trains reference models

Safe while serving, under a short lock. But while a model has both, which only workers of this
release make, the sweep of an earlier one fails: do not leave both running for long.
"""

import sqlalchemy as sa
from alembic import op

revision = "f7a3d90c51e8"
down_revision = "c20f6b8d91e3"

INDEX = "jobs_one_open_per_model_idx"


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    one_open_job_per_model("'estimate', 'purge', 'train_references'")


def one_open_job_per_model(but: str) -> None:
    op.drop_index(INDEX, "jobs")
    op.create_index(
        INDEX,
        "jobs",
        ["model_id"],
        unique=True,
        postgresql_where=sa.text(f"status IN ('queued', 'running') AND kind NOT IN ({but})"),
    )


def downgrade() -> None:
    """Refused while a model has two jobs that earlier code has one after another."""
    op.execute("SET LOCAL lock_timeout = '5s'")
    both = (
        "SELECT EXISTS (SELECT FROM jobs WHERE status IN ('queued', 'running') AND model_id IS NOT "
        "NULL AND kind NOT IN ('estimate', 'purge') GROUP BY model_id HAVING count(*) > 1)"
    )
    if op.get_bind().scalar(sa.text(both)):
        raise RuntimeError(
            "Reference models are trained while a model forgets, which earlier releases do not "
            "know. Wait until one of the two jobs has ended."
        )
    one_open_job_per_model("'estimate', 'purge'")
