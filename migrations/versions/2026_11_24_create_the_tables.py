"""create the tables

Safe while serving: new tables only, no locks on tables in use.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "155a4eee58fe"
down_revision = None

NOW = sa.func.now()
OPEN_JOB = sa.text("status IN ('queued', 'running')")
REQUEST_STATUSES = (
    "pending", "scheduled", "running", "completed", "needs_review", "failed", "cancelled",
    "refused",
)  # fmt: skip


def one_of(name: str, *values: str) -> sa.Enum:
    return sa.Enum(*values, name=name, native_enum=False, create_constraint=True, length=24)


def identity() -> sa.Column[object]:
    return sa.Column("id", sa.Uuid, primary_key=True)


def text(name: str, *, nullable: bool = False) -> sa.Column[object]:
    return sa.Column(name, sa.String, nullable=nullable)


def integer(name: str) -> sa.Column[object]:
    return sa.Column(name, sa.Integer, nullable=False)


def number(name: str, *, nullable: bool = False) -> sa.Column[object]:
    return sa.Column(name, sa.Double, nullable=nullable)


def json(name: str, *, nullable: bool = False) -> sa.Column[object]:
    return sa.Column(name, JSONB, nullable=nullable)


def instant(name: str, *, nullable: bool = True) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable)


def created(name: str = "created_at") -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True), server_default=NOW, nullable=False)


def link(name: str, target: str, *, nullable: bool = False, key: bool = False) -> sa.Column[object]:
    return sa.Column(name, sa.Uuid, sa.ForeignKey(target), nullable=nullable, primary_key=key)


def scores() -> list[sa.Column[object]]:
    return [
        number("forget_accuracy"),
        number("retain_accuracy"),
        number("holdout_accuracy", nullable=True),
        number("da_forget"),
        number("da_holdout", nullable=True),
        number("da_gap", nullable=True),
        number("da_gap_low", nullable=True),
        number("da_gap_high", nullable=True),
    ]


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.create_table(
        "datasets",
        identity(),
        text("name"),
        text("uri"),
        json("definition"),
        sa.Column("status", one_of("status", "pending", "ready", "failed"), nullable=False),
        json("report", nullable=True),
        text("failure", nullable=True),
        created(),
        instant("ready_at"),
        sa.UniqueConstraint("name"),
    )
    op.create_table(
        "samples",
        link("dataset_id", "datasets.id", key=True),
        sa.Column("sample_id", sa.String, primary_key=True),
        sa.Column("position", sa.BigInteger, nullable=False),
        integer("label"),
        sa.Column("split", one_of("split", "train", "holdout", "test"), nullable=False),
    )
    op.create_table(
        "models",
        identity(),
        text("name"),
        link("dataset_id", "datasets.id"),
        text("weights_uri"),
        json("architecture"),
        text("head"),
        json("preprocessing"),
        json("policy"),
        sa.Column("status", one_of("status", "pending", "ready", "failed"), nullable=False),
        text("failure", nullable=True),
        created(),
        instant("ready_at"),
        sa.UniqueConstraint("name"),
    )
    op.create_index(None, "models", ["dataset_id"])
    create_jobs_and_versions()
    create_requests()
    create_results()
    create_audit_events()


def create_jobs_and_versions() -> None:
    op.create_table(
        "jobs",
        identity(),
        sa.Column(
            "kind",
            one_of("kind", "index_dataset", "register_model", "unlearn"),
            nullable=False,
        ),
        link("dataset_id", "datasets.id", nullable=True),
        link("model_id", "models.id", nullable=True),
        sa.Column(
            "status", one_of("status", "queued", "running", "completed", "failed"), nullable=False
        ),
        integer("attempt"),
        integer("losses"),
        text("worker", nullable=True),
        instant("lease_until"),
        text("phase", nullable=True),
        number("progress"),
        sa.Column("objective", one_of("objective", "untrain_samples", "remove_class")),
        json("config", nullable=True),
        json("environment", nullable=True),
        sa.Column("base_version_id", sa.Uuid),
        text("verdict", nullable=True),
        json("failure", nullable=True),
        created(),
        instant("started_at"),
        instant("finished_at"),
        sa.CheckConstraint("(status = 'running') = (lease_until IS NOT NULL)", "lease_iff_running"),
        sa.CheckConstraint("(status = 'failed') = (failure IS NOT NULL)", "failure_iff_failed"),
    )
    op.create_index(None, "jobs", ["model_id"])
    op.create_index("jobs_open_idx", "jobs", ["status"], postgresql_where=OPEN_JOB)
    op.create_index(
        "jobs_one_open_per_model_idx",
        "jobs",
        ["model_id"],
        unique=True,
        postgresql_where=OPEN_JOB,
    )
    op.create_table(
        "model_versions",
        identity(),
        link("model_id", "models.id"),
        integer("number"),
        sa.Column("status", one_of("status", "champion", "superseded"), nullable=False),
        link("parent_id", "model_versions.id", nullable=True),
        link("job_id", "jobs.id"),
        text("weights_sha256"),
        text("statistics_sha256"),
        text("reservoir_sha256"),
        json("figures"),
        created(),
        instant("superseded_at"),
        sa.UniqueConstraint("model_id", "number"),
        sa.UniqueConstraint("job_id"),
        sa.CheckConstraint(
            "(status = 'superseded') = (superseded_at IS NOT NULL)", "superseded_at"
        ),
    )
    op.create_index(
        "model_versions_one_champion_idx",
        "model_versions",
        ["model_id"],
        unique=True,
        postgresql_where=sa.text("status = 'champion'"),
    )
    op.create_foreign_key(None, "jobs", "model_versions", ["base_version_id"], ["id"])


def create_requests() -> None:
    op.create_table(
        "deletion_requests",
        identity(),
        link("dataset_id", "datasets.id"),
        sa.Column(
            "objective", one_of("objective", "untrain_samples", "remove_class"), nullable=False
        ),
        sa.Column("status", one_of("status", *REQUEST_STATUSES), nullable=False),
        text("subject_ref", nullable=True),
        text("reason", nullable=True),
        integer("samples"),
        integer("duplicates"),
        instant("received_at", nullable=False),
        instant("due_at", nullable=False),
        created(),
        instant("finished_at"),
    )
    op.create_index("deletion_requests_open_idx", "deletion_requests", ["status", "due_at"])
    op.create_table(
        "request_samples",
        sa.Column("request_id", sa.Uuid, primary_key=True),
        sa.Column("sample_id", sa.String, primary_key=True),
    )
    op.create_table(
        "deletion_targets",
        link("request_id", "deletion_requests.id", key=True),
        link("model_id", "models.id", key=True),
        sa.Column("status", one_of("status", *REQUEST_STATUSES), nullable=False),
        link("job_id", "jobs.id", nullable=True),
        integer("already_forgotten"),
        integer("not_trained_on"),
    )
    op.create_index(None, "deletion_targets", ["job_id"])
    op.create_index(None, "deletion_targets", ["model_id", "status"])
    op.create_table(
        "idempotency_keys",
        sa.Column("key", sa.String, primary_key=True),
        text("fingerprint"),
        link("request_id", "deletion_requests.id"),
        json("response"),
        created(),
    )
    op.create_index(None, "idempotency_keys", ["created_at"])


def create_results() -> None:
    op.create_table(
        "tombstones",
        link("model_id", "models.id", key=True),
        sa.Column("sample_id", sa.String, primary_key=True),
        link("job_id", "jobs.id"),
        created("forgotten_at"),
    )
    op.create_index(None, "tombstones", ["job_id"])
    op.create_table(
        "alignment_scores",
        link("job_id", "jobs.id", key=True),
        sa.Column("cycle", sa.Integer, primary_key=True, autoincrement=False),
        integer("attempt"),
        number("loss_alignment"),
        number("loss_distillation"),
        number("loss_retain"),
        created(),
        *scores(),
    )
    op.create_table(
        "evaluations",
        link("job_id", "jobs.id", key=True),
        sa.Column("moment", sa.String, primary_key=True),
        json("figures"),
        created(),
        *scores(),
        sa.CheckConstraint("moment IN ('before', 'after')", "moment"),
    )


def create_audit_events() -> None:
    op.create_table(
        "audit_events",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column(
            "at",
            sa.DateTime(timezone=True),
            server_default=sa.func.clock_timestamp(),
            nullable=False,
        ),
        text("actor"),
        text("event"),
        sa.Column("subject_id", sa.Uuid, nullable=False),
        json("data"),
    )
    op.create_index(None, "audit_events", ["subject_id"])
    op.execute(
        """
        CREATE FUNCTION refuse_to_change_audit_events() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION 'audit_events is append-only: % refused', TG_OP;
        END $$
        """
    )
    op.execute(
        """
        CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON audit_events
        FOR EACH ROW EXECUTE FUNCTION refuse_to_change_audit_events()
        """
    )
    op.execute(
        """
        CREATE TRIGGER append_only_whole BEFORE TRUNCATE ON audit_events
        FOR EACH STATEMENT EXECUTE FUNCTION refuse_to_change_audit_events()
        """
    )


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_table("audit_events")
    op.execute("DROP FUNCTION refuse_to_change_audit_events()")
    op.drop_constraint("jobs_base_version_id_fkey", "jobs")
    for table in (
        "evaluations", "alignment_scores", "tombstones", "idempotency_keys", "deletion_targets",
        "request_samples", "deletion_requests", "model_versions", "jobs", "models", "samples",
        "datasets",
    ):  # fmt: skip
        op.drop_table(table)
