"""What the service's roles may do with each table, column by column: the one place that says so.

`lethe_api` is the role of the API, `lethe_worker` that of worker and beat. Every upgrade to the
newest schema ends with `migrations.settling`, which takes and gives what differs. So a migration
grants nothing: a new table gets its line here, and a new column its word.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

API, WORKER = "lethe_api", "lethe_worker"
EITHER = "lethe_app"
"""A role that is a member of both and has no rights of its own: for those who give all processes
one URL, as was usual before there were two roles."""

SERVICE = (API, WORKER, EITHER)
EVERY = "*"


@dataclass(frozen=True, slots=True)
class Rights:
    """What one role may do with a table. Columns are named in one string, separated by blanks."""

    select: str = EVERY
    """The columns it may read; `*` for all, those to come included."""

    insert: bool = False
    """Whether it may add rows, with any value in the columns that the database does not compute.
    When a row was added, for one, it does: the service cannot date it back."""

    update: str = ""
    """The columns it may change. Whoever locks a row needs one."""

    delete: bool = False
    analyze: bool = False
    """Whether it may have the planner's statistics renewed: from Postgres 17 on. Before, ANALYZE is
    left undone with a warning."""


@dataclass(frozen=True, slots=True)
class Table:
    """What both roles may do. A column that nobody may change stands in `fixed`, so that none is
    forgotten; primary keys and what the database fills in need no mention."""

    api: Rights | None = None
    worker: Rights | None = None
    fixed: str = ""

    def rights(self) -> Iterable[tuple[str, Rights]]:
        return ((role, may) for role, may in ((API, self.api), (WORKER, self.worker)) if may)


READ = Rights()
APPEND = Rights(insert=True)

SCORES = (
    "forget_accuracy retain_accuracy holdout_accuracy da_forget da_holdout da_gap da_gap_low "
    "da_gap_high"
)
ROWS_ERASED = "rows_status rows_left rows_job_id rows_at"
DELIVERED = "status attempt next_attempt_at response_status failure finished_at"

TABLES: Mapping[str, Table] = {
    # What was registered
    "datasets": Table(
        api=Rights(insert=True, update="uri definition status failure report deleted_at"),
        worker=Rights(update="uri status failure report state files ready_at purged_at"),
        fixed="name tombstone_key group_key",
    ),
    "samples": Table(
        api=READ,
        worker=Rights(
            insert=True, update="position label split since content group_digest", delete=True
        ),
    ),
    "dataset_states": Table(
        api=Rights(insert=True, update="status failure"),
        worker=Rights(update="status number found failure ready_at"),
        fixed="dataset_id job_id idempotency_key fingerprint uri refuse_suppressed",
    ),
    "former_samples": Table(
        api=READ,
        worker=Rights(insert=True, update="since removed_in content group_digest", delete=True),
    ),
    "models": Table(
        api=Rights(
            insert=True,
            update="dataset_id weights_uri architecture head preprocessing declared found recipe "
            "backbone policy expected_accuracy accept_accuracy suppressed_samples status failure "
            "deleted_at",
        ),
        worker=Rights(
            update="architecture preprocessing found near_duplicates timings suppressed_samples "
            "state status failure ready_at purged_at"
        ),
        fixed="name",
    ),
    "model_versions": Table(
        api=Rights(update="status superseded_at purge_after"),
        worker=Rights(
            insert=True, update="status superseded_at purge_after purged_at reservoir_sha256"
        ),
        fixed="model_id number mode parent_id job_id weights_sha256 statistics_sha256 "
        "features_sha256 figures",
    ),
    "version_registrations": Table(
        api=Rights(insert=True, update="status failure"),
        worker=Rights(update="status failure found ready_at"),
        fixed="model_id job_id idempotency_key fingerprint weights_uri trained_on "
        "expected_accuracy accept_accuracy accept_memory",
    ),
    "reference_tables": Table(
        worker=Rights(insert=True, update="job_id models recipe", delete=True)
    ),
    "out_of_sample_predictions": Table(
        api=Rights(select="model_id sample_id", delete=True),
        worker=Rights(insert=True, delete=True),
        fixed="probabilities",
    ),
    "membership_statistics": Table(
        api=Rights(select="model_id sample_id", delete=True),
        worker=Rights(insert=True, delete=True),
        fixed="in_mean in_std out_mean out_std scores seen_by",
    ),
    "near_duplicates": Table(
        api=Rights(select="model_id sample_id", delete=True),
        worker=Rights(insert=True, delete=True),
        fixed="group_number",
    ),
    "tombstones": Table(api=APPEND, worker=APPEND, fixed="job_id"),
    "suppression_lifts": Table(
        api=APPEND, worker=READ, fixed="dataset_id samples reason authorised_by lifted_by"
    ),
    "lifted_samples": Table(api=Rights(insert=True, delete=True), worker=READ, fixed="lift_id"),
    "dataset_checks": Table(
        api=APPEND,
        worker=Rights(update="rows suppressed positions"),
        fixed="dataset_id job_id uri column",
    ),
    "derived_data": Table(api=READ),
    # What people asked for
    "deletion_requests": Table(
        api=Rights(
            insert=True, update=f"status finished_at subject_ref reason shredded_at {ROWS_ERASED}"
        ),
        worker=Rights(
            update=f"status finished_at overdue_at subject_ref reason shredded_at {ROWS_ERASED}"
        ),
        fixed="dataset_id objective exact urgent samples duplicates subjects unknown_subjects "
        "subject_samples commitment received_at time_zone due_at",
    ),
    "request_keys": Table(
        api=Rights(insert=True, delete=True),
        worker=Rights(select="request_id", delete=True),
        fixed="key entries",
    ),
    "request_samples": Table(api=Rights(insert=True, delete=True), worker=Rights(delete=True)),
    "deletion_targets": Table(
        api=Rights(
            insert=True, update="status job_id waits_until accepted_job_id already_forgotten"
        ),
        worker=Rights(update="status job_id waits_until accepted_job_id already_forgotten former"),
        fixed="not_trained_on",
    ),
    "decisions": Table(
        api=Rights(insert=True, update="ground"),
        worker=Rights(update="ground"),
        fixed="request_id job_id decision decided_by",
    ),
    "estimates": Table(
        api=APPEND,
        worker=READ,
        fixed="dataset_id objective exact samples duplicates subjects unknown_subjects "
        "subject_samples",
    ),
    "estimate_targets": Table(
        api=APPEND,
        worker=Rights(update="result"),
        fixed="job_id already_forgotten not_trained_on former",
    ),
    "estimate_samples": Table(api=Rights(insert=True, delete=True), worker=Rights(delete=True)),
    "idempotency_keys": Table(
        api=Rights(insert=True, update="fingerprint request_id asked created_at", delete=True),
        worker=Rights(select="key request_id created_at", delete=True),
    ),
    # What is being done
    "jobs": Table(
        api=Rights(
            insert=True,
            update="status lease_until phase losses not_before failure finished_at forgotten_at",
        ),
        worker=Rights(
            insert=True,
            update="status attempt losses not_before worker lease_until phase progress config "
            "environment base_version_id mode mode_reason verdict failure started_at finished_at "
            "forgotten_at",
        ),
        fixed="kind dataset_id model_id objective accepted_job_id",
    ),
    "checkpoints": Table(
        worker=Rights(insert=True, update="attempt cycle name sha256", delete=True)
    ),
    "alignment_scores": Table(
        api=READ,
        worker=Rights(
            insert=True,
            update=f"attempt loss_alignment loss_distillation loss_retain {SCORES}",
            delete=True,
        ),
    ),
    "evaluations": Table(
        api=READ, worker=Rights(insert=True, delete=True), fixed=f"figures {SCORES}"
    ),
    "rounds": Table(
        api=READ,
        worker=Rights(insert=True, update="kept", delete=True),
        fixed="step mode config verdict reason alpha permutations seed",
    ),
    "audit_tests": Table(
        api=READ,
        worker=Rights(insert=True, delete=True),
        fixed="position value low high expected threshold p_value forget_samples holdout_samples "
        "passed",
    ),
    "pooled_statistics": Table(
        worker=Rights(insert=True, delete=True),
        fixed="model_id samples label before after peers everyone",
    ),
    "pooled_audits": Table(
        api=READ, worker=APPEND, fixed="model_id version verdict returned figures"
    ),
    # Evidence
    "audit_events": Table(api=APPEND, worker=APPEND, fixed="actor event subject_id data"),
    "audit_leaves": Table(api=READ, worker=READ, fixed="event_id"),
    "audit_nodes": Table(api=READ, worker=APPEND, fixed="hash"),
    "audit_checkpoints": Table(api=READ, worker=APPEND, fixed="note"),
    "audit_anchors": Table(api=READ, worker=APPEND, fixed="receipt"),
    "certified_checkpoints": Table(worker=APPEND),
    "signing_keys": Table(api=READ, worker=APPEND, fixed="name public_key"),
    "certificates": Table(api=READ, worker=APPEND, fixed="envelope payload_sha256"),
    # Webhooks
    "webhook_endpoints": Table(
        api=Rights(
            insert=True,
            update="description events status disabled_reason secret previous_secret "
            "previous_secret_until",
            delete=True,
        ),
        worker=Rights(update="status disabled_reason previous_secret previous_secret_until"),
        fixed="url",
    ),
    "webhook_deliveries": Table(
        api=Rights(insert=True, update=DELIVERED),
        worker=Rights(insert=True, update=DELIVERED, delete=True),
        fixed="endpoint_id event body",
    ),
    # How rows of a dataset come in
    "staged_samples": Table(
        worker=Rights(insert=True, update="usable", delete=True),
        fixed="sample_id position label split group_digest content",
    ),
    "staged_positions": Table(
        worker=Rights(insert=True, delete=True, analyze=True), fixed="sample_id position"
    ),
    "alembic_version": Table(api=READ, worker=READ),
}

FUNCTIONS: Mapping[str, tuple[str, ...]] = {"hmac_sha256": (API, WORKER)}
"""Who may call which function. Triggers need no such right."""
