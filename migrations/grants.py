"""What the service's roles may do with each table, column by column: the one place that says so.

`lethe_api` is the role of the API, `lethe_worker` that of worker and beat. Every upgrade to the
newest schema ends with `settle`, which takes and gives what differs. So a migration grants nothing:
a new table gets its line here, and a new column its word.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import Connection, text

API, WORKER = "lethe_api", "lethe_worker"
EITHER = "lethe_app"
"""A role that is a member of both and has no rights of its own: for those who give all processes
one URL, as was usual before there were two roles."""

SERVICE = (API, WORKER, EITHER)
OPEN_TO_ALL = "public"
"""How Postgres calls the rights that every role has."""

EVERY = "*"

MAINTAIN_SINCE = 170_000
"""The version of Postgres that has the right to analyze the tables of others."""


@dataclass(frozen=True, slots=True)
class Rights:
    """What one role may do with a table. Columns are named in one string, separated by blanks."""

    select: str = EVERY
    """The columns it may read; `*` for all, those to come included."""

    insert: bool = False
    """Whether it may add rows, with any value in the columns that have no default in the database.
    The others are the database's to fill in: the service cannot date a row back."""

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
DELIVERED = "status attempt next_attempt_at response_status failure finished_at"

TABLES: Mapping[str, Table] = {
    # What was registered
    "datasets": Table(
        api=Rights(insert=True, update="uri definition status failure report"),
        worker=Rights(update="status failure report files ready_at"),
        fixed="name tombstone_key",
    ),
    "samples": Table(
        api=READ,
        worker=Rights(insert=True, update="position", delete=True, analyze=True),
        fixed="label split",
    ),
    "models": Table(
        api=Rights(
            insert=True,
            update="dataset_id weights_uri architecture head preprocessing recipe policy "
            "suppressed_samples status failure",
        ),
        worker=Rights(update="architecture status failure ready_at"),
        fixed="name",
    ),
    "model_versions": Table(
        api=Rights(update="status superseded_at purge_after"),
        worker=Rights(
            insert=True, update="status superseded_at purge_after purged_at reservoir_sha256"
        ),
        fixed="model_id number mode parent_id job_id weights_sha256 statistics_sha256 figures",
    ),
    "reference_tables": Table(worker=Rights(insert=True, update="job_id models recipe")),
    "out_of_sample_predictions": Table(
        api=Rights(select="model_id sample_id", delete=True),
        worker=Rights(insert=True, delete=True),
        fixed="probabilities",
    ),
    "membership_statistics": Table(
        api=Rights(select="model_id sample_id", delete=True),
        worker=Rights(insert=True, delete=True),
        fixed="in_mean in_std out_mean out_std",
    ),
    "tombstones": Table(api=APPEND, worker=APPEND, fixed="job_id"),
    "dataset_checks": Table(
        api=APPEND,
        worker=Rights(update="rows suppressed positions"),
        fixed="dataset_id job_id uri column",
    ),
    "derived_data": Table(api=READ),
    # What people asked for
    "deletion_requests": Table(
        api=Rights(insert=True, update="status finished_at subject_ref reason shredded_at"),
        worker=Rights(update="status finished_at overdue_at subject_ref reason shredded_at"),
        fixed="dataset_id objective exact samples duplicates commitment received_at due_at",
    ),
    "request_keys": Table(
        api=Rights(insert=True, delete=True),
        worker=Rights(select="request_id", delete=True),
        fixed="key entries",
    ),
    "request_samples": Table(api=Rights(insert=True, delete=True), worker=Rights(delete=True)),
    "deletion_targets": Table(
        api=Rights(insert=True, update="status job_id already_forgotten"),
        worker=Rights(update="status job_id already_forgotten"),
        fixed="not_trained_on",
    ),
    "decisions": Table(
        api=Rights(insert=True, update="ground"),
        worker=Rights(update="ground"),
        fixed="request_id job_id decision decided_by",
    ),
    "estimates": Table(
        api=APPEND, worker=READ, fixed="dataset_id objective exact samples duplicates"
    ),
    "estimate_targets": Table(
        api=APPEND,
        worker=Rights(update="result"),
        fixed="job_id already_forgotten not_trained_on",
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
        fixed="kind dataset_id model_id objective",
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
        worker=Rights(insert=True, update="usable", delete=True, analyze=True),
        fixed="sample_id position label split",
    ),
    "staged_positions": Table(
        worker=Rights(insert=True, delete=True, analyze=True), fixed="sample_id position"
    ),
    "alembic_version": Table(api=READ, worker=READ),
}

FUNCTIONS: Mapping[str, tuple[str, ...]] = {"hmac_sha256": (API, WORKER)}
"""Who may call which function. Triggers need no such right."""


class Grant(NamedTuple):
    """One right of one role. `column` is empty for a right to the whole object."""

    role: str
    privilege: str
    kind: str
    """`TABLE`, `FUNCTION`, `SCHEMA` or `DATABASE`."""

    name: str
    """As GRANT wants it: quoted, and with the argument types of a function."""

    column: str = ""


def require_plain_owner(connection: Connection) -> None:
    """Refuse to make tables and functions as a superuser: one of the functions runs with the rights
    of its owner.

    Raises:
        RuntimeError: this is a superuser's connection, or one of somebody who owns nothing here.
    """
    name, is_superuser, may_create = connection.execute(text(WHO)).one()
    connection.rollback()
    if is_superuser:
        raise RuntimeError(
            f"{name} is a superuser, and the owner of the tables must not be one. Run "
            "migrations/roles.sql as this role, let lethe_owner log in, and run the migrations as "
            'lethe_owner: docs/operators.md, "Database roles".'
        )
    if not may_create:
        raise RuntimeError(
            f"{name} may not create tables in this database. Run migrations/roles.sql as a "
            'superuser, and the migrations as lethe_owner: docs/operators.md, "Database roles".'
        )


def settle(connection: Connection) -> None:
    """Take from the service's roles, and from everyone, what is not declared; give what is missing.

    To be run by the owner of the tables, in a transaction. Rights of other roles are not touched.

    Raises:
        RuntimeError: everyone may still create objects; the owner of the database has to end that.
    """
    for each in sorted(present(connection) - declared(connection)):
        connection.execute(text(f"REVOKE {_what(each)} FROM {_whom(each)} CASCADE"))
    # To take a right to a table takes those to its columns along.
    for each in sorted(declared(connection) - present(connection)):
        connection.execute(text(f"GRANT {_what(each)} TO {_whom(each)}"))
    left = [grant for grant in present(connection) if grant.privilege in ("TEMPORARY", "CREATE")]
    if left:
        raise RuntimeError(
            "Everyone who can connect to this database may create "
            + " and ".join(sorted({_creates(grant) for grant in left}))
            + ", and only the owner of the database can end that. Run migrations/roles.sql as a "
            'superuser, then this again: docs/operators.md, "Database roles".'
        )


def _what(grant: Grant) -> str:
    column = f' ("{grant.column}")' if grant.column else ""
    return f"{grant.privilege}{column} ON {grant.kind} {grant.name}"


def _whom(grant: Grant) -> str:
    return "PUBLIC" if grant.role == OPEN_TO_ALL else grant.role


def _creates(grant: Grant) -> str:
    return "temporary tables" if grant.privilege == "TEMPORARY" else f"objects in {grant.name}"


def declared(connection: Connection) -> set[Grant]:
    """The rights that the service's roles are to have; everyone has none.

    Which columns there are, and which the database fills in, is read from the database.
    """
    schema = str(connection.scalar(text("SELECT quote_ident(current_schema())")))
    found = {Grant(role, "USAGE", "SCHEMA", schema) for role in (API, WORKER)}
    filled_in = _filled_in(connection)
    version = connection.scalar(text("SELECT current_setting('server_version_num')::int")) or 0
    for name, table in TABLES.items():
        for role, may in table.rights():
            found |= _of_table(role, f"{schema}.{name}", may, filled_in.get(name, {}))
            if may.analyze and version >= MAINTAIN_SINCE:
                found.add(Grant(role, "MAINTAIN", "TABLE", f"{schema}.{name}"))
    for signature, name in connection.execute(text(FUNCTIONS_OF_SCHEMA)):
        found |= {Grant(role, "EXECUTE", "FUNCTION", signature) for role in FUNCTIONS.get(name, ())}
    return found


def _of_table(role: str, name: str, may: Rights, columns: Mapping[str, bool]) -> set[Grant]:
    read = [""] if may.select == EVERY else may.select.split()
    found = {Grant(role, "SELECT", "TABLE", name, column) for column in read}
    found |= {Grant(role, "UPDATE", "TABLE", name, column) for column in may.update.split()}
    if may.insert:
        own = [column for column, is_filled_in in columns.items() if not is_filled_in]
        found |= {Grant(role, "INSERT", "TABLE", name, column) for column in own}
    if may.delete:
        found.add(Grant(role, "DELETE", "TABLE", name))
    return found


def _filled_in(connection: Connection) -> dict[str, dict[str, bool]]:
    """The columns of each table, and whether the database fills them in."""
    found: dict[str, dict[str, bool]] = {}
    for table, column, is_filled_in in connection.execute(text(COLUMNS)):
        found.setdefault(table, {})[column] = is_filled_in
    return found


def present(connection: Connection) -> set[Grant]:
    """The rights that the service's roles, and everyone, have in this database and schema now.

    Left out is what everyone has by default and should: to connect, and to look up names.
    """
    rows = connection.execute(text(RIGHTS), {"roles": list(SERVICE), "everyone": OPEN_TO_ALL})
    return {Grant(*row) for row in rows}


WHO = """
SELECT rolname, rolsuper, coalesce(has_schema_privilege(current_schema(), 'CREATE'), false)
FROM pg_catalog.pg_roles WHERE rolname = current_user
"""

COLUMNS = """
SELECT relname, attname, atthasdef OR attidentity <> ''
FROM pg_catalog.pg_attribute JOIN pg_catalog.pg_class ON pg_class.oid = attrelid
WHERE relnamespace = (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = current_schema())
  AND relkind IN ('r', 'p') AND attnum > 0 AND NOT attisdropped
ORDER BY relname, attnum
"""

FUNCTIONS_OF_SCHEMA = """
SELECT format('%I.%I(%s)', current_schema(), proname, pg_get_function_identity_arguments(oid)),
       proname
FROM pg_catalog.pg_proc
WHERE pronamespace = (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = current_schema())
"""

RIGHTS = """
WITH here AS (
    SELECT oid AS schema FROM pg_catalog.pg_namespace WHERE nspname = current_schema()
), objects AS (
    SELECT CASE relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END AS kind,
           format('%I.%I', current_schema(), relname) AS name, '' AS column_name,
           coalesce(relacl, acldefault(CASE relkind WHEN 'S' THEN 's' ELSE 'r' END::"char",
                                       relowner)) AS acl
    FROM pg_catalog.pg_class, here
    WHERE relnamespace = schema AND relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
    UNION ALL
    SELECT 'TABLE', format('%I.%I', current_schema(), relname), attname, attacl
    FROM pg_catalog.pg_attribute JOIN pg_catalog.pg_class ON pg_class.oid = attrelid, here
    WHERE relnamespace = schema AND attacl IS NOT NULL AND NOT attisdropped
    UNION ALL
    SELECT 'FUNCTION',
           format('%I.%I(%s)', current_schema(), proname, pg_get_function_identity_arguments(oid)),
           '', coalesce(proacl, acldefault('f', proowner))
    FROM pg_catalog.pg_proc, here WHERE pronamespace = schema
    UNION ALL
    SELECT 'SCHEMA', quote_ident(nspname), '', coalesce(nspacl, acldefault('n', nspowner))
    FROM pg_catalog.pg_namespace, here WHERE oid = schema
    UNION ALL
    SELECT 'DATABASE', quote_ident(datname), '', coalesce(datacl, acldefault('d', datdba))
    FROM pg_catalog.pg_database WHERE datname = current_database()
), held AS (
    SELECT CASE grantee WHEN 0 THEN :everyone ELSE pg_get_userbyid(grantee)::text END AS role,
           privilege_type AS privilege, kind, name, column_name
    FROM objects, aclexplode(acl)
)
SELECT role, privilege, kind, name, column_name FROM held
WHERE (role = ANY(:roles) OR role = :everyone)
  AND NOT (role = :everyone AND privilege = 'CONNECT')
  AND NOT (role = :everyone AND privilege = 'USAGE' AND kind = 'SCHEMA')
"""
