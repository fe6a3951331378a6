"""What is over cannot be rewritten, dated back or taken away by the roles of the service."""

import psycopg
import pytest
from psycopg import errors
from sqlalchemy import create_engine
from sqlalchemy.engine import make_url
from sqlalchemy.orm import Session

from devstack import roles
from domain.states import JobStatus, RequestStatus
from domain.tables import Certificate, RequestKey
from migrations.grants import API, EITHER, WORKER
from tests import factories


def event(actor, column="", value=""):
    return (
        f"INSERT INTO audit_events (actor, event, subject_id, data{column}) "
        f"VALUES ('{actor}', 'x.happened', gen_random_uuid(), '{{}}'{value})"
    )


def back_dated(actor):
    return event(actor, ", at", ", now() - interval '1 year'")


TAMPERED = {
    # Tombstones and certificates
    "DELETE FROM tombstones": errors.InsufficientPrivilege,
    "UPDATE tombstones SET digest = '\\x00'": errors.InsufficientPrivilege,
    "INSERT INTO tombstones (model_id, digest, job_id, forgotten_at) "
    "SELECT model_id, '\\x01', id, now() - interval '1 year' FROM jobs": (
        errors.InsufficientPrivilege
    ),
    "UPDATE certificates SET issued_at = issued_at - interval '1 year'": (
        errors.InsufficientPrivilege
    ),
    # Verdicts
    "UPDATE audit_tests SET passed = true": errors.InsufficientPrivilege,
    "UPDATE rounds SET verdict = 'pass'": errors.InsufficientPrivilege,
    "UPDATE jobs SET verdict = 'pass' WHERE status = 'completed'": (
        errors.InsufficientPrivilege,
        errors.CheckViolation,
    ),
    "UPDATE jobs SET forgotten_at = now() - interval '1 year' WHERE status = 'completed'": (
        errors.CheckViolation
    ),
    "DELETE FROM audit_tests": (errors.InsufficientPrivilege, errors.CheckViolation),
    "DELETE FROM rounds": (errors.InsufficientPrivilege, errors.CheckViolation),
    "DELETE FROM evaluations": (errors.InsufficientPrivilege, errors.CheckViolation),
    "INSERT INTO rounds (job_id, number, step, mode, config, verdict, reason, kept) "
    "SELECT id, 9, 'more_cycles', 'exact', '{}', 'pass', '', true FROM jobs": (
        errors.InsufficientPrivilege,
        errors.CheckViolation,
    ),
    # What a model and a dataset are
    'UPDATE models SET policy = \'{"grace": "PT0S"}\'': (
        errors.InsufficientPrivilege,
        errors.CheckViolation,
    ),
    "UPDATE models SET dataset_id = gen_random_uuid()": (
        errors.InsufficientPrivilege,
        errors.CheckViolation,
    ),
    "UPDATE models SET status = 'failed'": errors.CheckViolation,
    "UPDATE datasets SET definition = '{}'": (errors.InsufficientPrivilege, errors.CheckViolation),
    "UPDATE datasets SET tombstone_key = '\\x00'": errors.InsufficientPrivilege,
    "UPDATE model_versions SET weights_sha256 = ''": errors.InsufficientPrivilege,
    "DELETE FROM model_versions": errors.InsufficientPrivilege,
    # What was asked and decided
    "UPDATE deletion_requests SET due_at = due_at + interval '1 year'": (
        errors.InsufficientPrivilege
    ),
    "UPDATE deletion_requests SET commitment = ''": errors.InsufficientPrivilege,
    "UPDATE deletion_requests SET reason = 'another'": errors.CheckViolation,
    "DELETE FROM deletion_requests": errors.InsufficientPrivilege,
    "UPDATE decisions SET decision = 'refuse'": errors.InsufficientPrivilege,
    "UPDATE decisions SET ground = 'another'": errors.CheckViolation,
    "DELETE FROM decisions": errors.InsufficientPrivilege,
    "UPDATE request_keys SET key = '\\x00'": errors.InsufficientPrivilege,
    # The trail
    back_dated("api"): errors.InsufficientPrivilege,
    back_dated("worker"): errors.InsufficientPrivilege,
    event("auditor"): errors.InsufficientPrivilege,
    event(""): errors.InsufficientPrivilege,
    "UPDATE alembic_version SET version_num = 'x'": errors.InsufficientPrivilege,
    "DELETE FROM jobs": errors.InsufficientPrivilege,
    "TRUNCATE idempotency_keys": errors.InsufficientPrivilege,
    "SELECT pg_read_file('PG_VERSION')": errors.InsufficientPrivilege,
    "SET ROLE lethe_owner": errors.InsufficientPrivilege,
    "SET session_replication_role = replica": errors.InsufficientPrivilege,
}

UNEARNED = (
    "INSERT INTO jobs (id, kind, model_id, status, attempt, losses, progress, verdict) SELECT "
    "gen_random_uuid(), 'unlearn', id, 'completed', 1, 0, 1, 'pass' FROM models",
    "INSERT INTO jobs (id, kind, model_id, status, attempt, losses, progress, verdict) SELECT "
    "gen_random_uuid(), 'unlearn', id, 'queued', 0, 0, 0, 'pass' FROM models",
    "INSERT INTO tombstones (model_id, digest, job_id) SELECT gen_random_uuid(), '\\x01', id "
    "FROM jobs WHERE status = 'completed'",
    "INSERT INTO tombstones (model_id, digest, job_id) SELECT model_id, '\\x01', id "
    "FROM jobs WHERE status = 'queued'",
)
FORGED_BY_THE_API = (
    "INSERT INTO model_versions (id, model_id, number, status, mode, job_id, weights_sha256, "
    "statistics_sha256, reservoir_sha256, figures) "
    "SELECT gen_random_uuid(), model_id, 2, 'champion', 'exact', id, '', '', '', '{}' FROM jobs",
    "INSERT INTO certificates (request_id, number, envelope, payload_sha256) "
    "SELECT id, 2, '{}', '' FROM deletion_requests",
    "INSERT INTO audit_checkpoints (size, note) VALUES (9, '')",
    "INSERT INTO audit_nodes VALUES (9, 9, '')",
    "INSERT INTO audit_anchors (size, kind) VALUES (9, 'directory')",
    "INSERT INTO signing_keys (id, name, public_key) VALUES (gen_random_uuid(), '', '')",
    "INSERT INTO samples VALUES (gen_random_uuid(), 'x', 1, 1, 'train')",
    "UPDATE jobs SET attempt = 7",
    "SELECT key FROM request_keys JOIN checkpoints ON true",
    "SELECT probabilities FROM out_of_sample_predictions",
    event("worker"),
)
FORGED_BY_THE_WORKER = (
    "INSERT INTO deletion_requests (id, dataset_id, objective, exact, status, samples, duplicates, "
    "received_at, due_at) SELECT gen_random_uuid(), id, '', false, 'completed', 1, 0, now(), now() "
    "FROM datasets",
    "INSERT INTO decisions (id, request_id, job_id, decision, ground, decided_by) "
    "SELECT gen_random_uuid(), request_id, job_id, 'accept', '', '' FROM decisions",
    "INSERT INTO webhook_endpoints (id, url, status, secret) "
    "VALUES (gen_random_uuid(), '', 'enabled', '')",
    "UPDATE webhook_endpoints SET secret = ''",
    "SELECT key FROM request_keys",
    "SELECT fingerprint FROM idempotency_keys",
    event("api"),
)


def connect(url, role):
    plain = make_url(roles.as_role(url, role)).set(drivername="postgresql")
    return psycopg.connect(plain.render_as_string(hide_password=False))


def refused(connection, statement):
    """The database's refusal of the statement, None if there was none; nothing remains of it."""
    try:
        with connection.transaction(force_rollback=True):
            connection.execute(statement)
    except psycopg.Error as error:
        return error
    return None


@pytest.fixture(scope="module")
def filled(new_database, migrated_template):
    """A database in which a job has ended, a request was completed, and all of it is recorded."""
    url = new_database(migrated_template)
    dataset = factories.dataset()
    model = factories.model(dataset)
    job = factories.job(model_id=model.id, finished=True, forgotten_at=factories.NOW)
    request = factories.request(dataset, status=RequestStatus.COMPLETED, reason="asked by letter")
    found = factories.tried(job)
    rows = [
        [dataset, model],
        [job, request, factories.version(model, job), factories.job(model_id=model.id)],
        [found, factories.tombstone(model, job, "t0"), factories.evaluation(job, "before")],
        [factories.audit_test(found, "after"), factories.decision(request, job)],
        [RequestKey(request_id=request.id, key=b"", entries=b"")],
        [Certificate(request_id=request.id, number=1, envelope="{}", payload_sha256="")],
    ]
    engine = create_engine(url)
    with Session(engine, expire_on_commit=False) as session, session.begin():
        for together in rows:
            for row in together:
                session.add(row)
                session.flush()
    engine.dispose()
    return url


@pytest.mark.parametrize("role", [API, WORKER, EITHER])
def test_what_is_over_stays_as_it_is(filled, role):
    with connect(filled, role) as connection:
        for statement, refusal in TAMPERED.items():
            assert isinstance(refused(connection, statement), refusal), statement


@pytest.mark.parametrize(
    ("role", "statements"), [(API, FORGED_BY_THE_API), (WORKER, FORGED_BY_THE_WORKER)]
)
def test_one_role_cannot_do_the_others_work(filled, role, statements):
    with connect(filled, role) as connection:
        for statement in statements:
            refusal = refused(connection, statement)
            assert isinstance(refusal, errors.InsufficientPrivilege), statement


@pytest.mark.parametrize("role", [API, WORKER, EITHER])
def test_what_was_not_earned_is_refused(filled, role):
    with connect(filled, role) as connection:
        for statement in UNEARNED:
            refusal = refused(connection, statement)
            assert isinstance(refusal, errors.CheckViolation | errors.ForeignKeyViolation), (
                statement
            )


def test_the_api_neither_runs_a_job_nor_says_how_it_ends(filled):
    started = "UPDATE jobs SET status = 'running', lease_until = now() WHERE status = 'queued'"
    ready = "UPDATE models SET status = 'ready' WHERE status = 'pending'"
    registered = (
        "INSERT INTO models (id, name, dataset_id, weights_uri, architecture, head, preprocessing, "
        "policy, suppressed_samples, status) SELECT gen_random_uuid(), 'new', id, '', '{{}}', '', "
        "'{{}}', '{{}}', 0, '{}' FROM datasets"
    )
    with connect(filled, API) as connection:
        assert isinstance(refused(connection, started), errors.CheckViolation)
        refusal = refused(connection, registered.format("ready"))
        assert isinstance(refusal, errors.CheckViolation)
        connection.execute(registered.format("pending"))
        assert isinstance(refused(connection, ready), errors.CheckViolation)
        connection.execute("UPDATE jobs SET status = 'cancelled' WHERE status = 'queued'")
        connection.rollback()
    with connect(filled, WORKER) as connection:
        assert connection.execute(started).rowcount == 1
        connection.rollback()


@pytest.mark.parametrize(("role", "actor"), [(API, "api"), (WORKER, "worker"), (EITHER, "api")])
def test_an_event_is_of_now_and_of_whoever_writes_it(filled, role, actor):
    with connect(filled, role) as connection:
        connection.execute(event(actor))
        told, is_now = connection.execute(
            "SELECT actor, at BETWEEN now() AND clock_timestamp() FROM audit_events "
            "ORDER BY id DESC LIMIT 1"
        ).fetchone()
        connection.rollback()

    assert (told, is_now) == (actor, True)


def test_a_date_that_was_let_through_is_replaced(filled):
    """If a grant is too wide one day, the trigger holds."""
    with connect(filled, roles.SUPERUSER) as connection:
        connection.execute(f"GRANT INSERT ON audit_events TO {WORKER}")
        connection.execute(f"SET ROLE {WORKER}")
        connection.execute(back_dated("worker"))
        is_now = connection.execute("SELECT max(at) >= now() FROM audit_events").fetchone()
        connection.rollback()

    assert is_now == (True,)


def test_what_a_request_says_of_a_person_can_be_destroyed(filled):
    for role in (API, WORKER):
        with connect(filled, role) as connection:
            connection.execute("UPDATE deletion_requests SET reason = NULL, subject_ref = NULL")
            connection.execute("UPDATE decisions SET ground = NULL")
            connection.execute("DELETE FROM request_keys")
            connection.rollback()


def test_a_running_job_writes_its_results_and_an_ended_one_is_tried_again(filled):
    with connect(filled, roles.SUPERUSER) as connection:
        status = JobStatus.RUNNING
        connection.execute("DELETE FROM jobs WHERE status = 'queued'")
        connection.execute("ALTER TABLE jobs DISABLE TRIGGER lawful_steps")
        connection.execute(f"UPDATE jobs SET status = '{status}', lease_until = now()")
        connection.execute("ALTER TABLE jobs ENABLE TRIGGER lawful_steps")
        connection.execute(f"SET ROLE {WORKER}")
        connection.execute("DELETE FROM audit_tests")
        connection.execute("DELETE FROM rounds")
        connection.execute(
            "UPDATE jobs SET verdict = 'fail', status = 'failed', "
            "lease_until = NULL, failure = '{}'"
        )
        connection.execute("UPDATE jobs SET status = 'queued', failure = NULL, losses = 0")
        connection.rollback()
