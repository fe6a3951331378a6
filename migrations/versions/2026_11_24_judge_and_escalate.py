"""judge and escalate: verdicts, rounds, exact mode, decisions

Safe while serving: new tables and columns, checks over small tables. The key of `alignment_scores`
gets the round, under a short lock.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "5c1b7d0e9a42"
down_revision = "155a4eee58fe"

VERDICTS = ("pass", "fail", "no_power")
MODES = ("approximate", "exact")
STEPS = ("more_cycles", "stronger", "retrain")


def one_of(name: str, *values: str) -> sa.Enum:
    return sa.Enum(*values, name=name, native_enum=False, create_constraint=True, length=24)


def version_statuses(*values: str) -> None:
    listed = ", ".join(f"'{value}'" for value in values)
    op.drop_constraint("model_versions_status_check", "model_versions")
    op.create_check_constraint("status", "model_versions", f"status IN ({listed})")


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.add_column("models", sa.Column("recipe", sa.String))
    op.add_column("jobs", sa.Column("mode", one_of("mode", *MODES)))
    op.add_column("jobs", sa.Column("mode_reason", sa.String))
    op.alter_column("jobs", "verdict", type_=sa.String(24))
    listed = ", ".join(f"'{verdict}'" for verdict in VERDICTS)
    op.create_check_constraint("verdict", "jobs", f"verdict IN ({listed})")
    version_statuses("candidate", "champion", "superseded")
    op.add_column("model_versions", sa.Column("mode", one_of("mode", *MODES)))
    op.execute(
        "UPDATE model_versions SET mode = "
        "CASE WHEN parent_id IS NULL THEN 'exact' ELSE 'approximate' END"
    )
    op.alter_column("model_versions", "mode", nullable=False)
    op.add_column(
        "deletion_requests",
        sa.Column("exact", sa.Boolean, server_default=sa.false(), nullable=False),
    )
    op.alter_column("deletion_requests", "exact", server_default=None)
    op.add_column(
        "alignment_scores", sa.Column("round", sa.Integer, server_default="1", nullable=False)
    )
    op.alter_column("alignment_scores", "round", server_default=None)
    op.drop_constraint("alignment_scores_pkey", "alignment_scores")
    op.create_primary_key(None, "alignment_scores", ["job_id", "round", "cycle"])
    create_rounds()
    create_decisions()


def create_rounds() -> None:
    op.create_table(
        "rounds",
        sa.Column("job_id", sa.Uuid, sa.ForeignKey("jobs.id"), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("step", one_of("step", *STEPS)),
        sa.Column("mode", one_of("mode", *MODES), nullable=False),
        sa.Column("config", JSONB, nullable=False),
        sa.Column("verdict", one_of("verdict", *VERDICTS), nullable=False),
        sa.Column("reason", sa.String, nullable=False),
        sa.Column("alpha", sa.Double),
        sa.Column("permutations", sa.Integer),
        sa.Column("seed", sa.BigInteger),
        sa.Column("kept", sa.Boolean, nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False
        ),
        sa.CheckConstraint("(number = 1) = (step IS NULL)", "first_has_no_step"),
    )
    op.create_table(
        "audit_tests",
        sa.Column("job_id", sa.Uuid, primary_key=True),
        sa.Column("round", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("moment", sa.String, primary_key=True),
        sa.Column("name", sa.String, primary_key=True),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("value", sa.Double, nullable=False),
        *(
            sa.Column(name, sa.Double)
            for name in ("low", "high", "expected", "threshold", "p_value")
        ),
        sa.Column("forget_samples", sa.Integer, nullable=False),
        sa.Column("holdout_samples", sa.Integer, nullable=False),
        sa.Column("passed", sa.Boolean, nullable=False),
        sa.ForeignKeyConstraint(["job_id", "round"], ["rounds.job_id", "rounds.number"]),
        sa.CheckConstraint("moment IN ('before', 'after', 'guard')", "moment"),
    )


def create_decisions() -> None:
    op.create_table(
        "decisions",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("request_id", sa.Uuid, sa.ForeignKey("deletion_requests.id"), nullable=False),
        sa.Column("job_id", sa.Uuid, sa.ForeignKey("jobs.id"), nullable=False),
        sa.Column("decision", one_of("decision", "accept", "retry", "refuse"), nullable=False),
        sa.Column("ground", sa.String, nullable=False),
        sa.Column("decided_by", sa.String, nullable=False),
        sa.Column(
            "decided_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False
        ),
    )
    op.create_index(None, "decisions", ["request_id"])


def downgrade() -> None:
    """Escalations, decisions and candidates are lost; served versions stay.

    Requests that wait for a decision wait for a new job: there is nothing left to decide.
    """
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.execute(
        "UPDATE deletion_targets SET status = 'pending', job_id = NULL "
        "WHERE status = 'needs_review'"
    )
    op.execute("UPDATE deletion_requests SET status = 'pending' WHERE status = 'needs_review'")
    for table in ("decisions", "audit_tests", "rounds"):
        op.drop_table(table)
    op.execute(
        "DELETE FROM alignment_scores kept USING alignment_scores later "
        "WHERE kept.job_id = later.job_id AND kept.round < later.round"
    )
    op.drop_constraint("alignment_scores_pkey", "alignment_scores")
    op.drop_column("alignment_scores", "round")
    op.create_primary_key(None, "alignment_scores", ["job_id", "cycle"])
    op.drop_column("deletion_requests", "exact")
    op.drop_column("model_versions", "mode")
    op.execute(
        "UPDATE model_versions SET status = 'superseded', superseded_at = now() "
        "WHERE status = 'candidate'"
    )
    version_statuses("champion", "superseded")
    op.drop_constraint("jobs_verdict_check", "jobs")
    op.alter_column("jobs", "verdict", type_=sa.String())
    op.drop_column("jobs", "mode_reason")
    op.drop_column("jobs", "mode")
    op.drop_column("models", "recipe")
