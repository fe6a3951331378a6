"""What the service's database role may not do, whatever its programs try."""

import psycopg
import pytest
from psycopg import errors, sql
from sqlalchemy import make_url

TRAIL = (
    "audit_events", "audit_leaves", "audit_nodes", "audit_checkpoints", "audit_anchors",
    "signing_keys", "certificates",
)  # fmt: skip
EVENT = (
    "INSERT INTO audit_events (actor, event, subject_id, data) "
    "VALUES ('api', 'request.received', gen_random_uuid(), '{}')"
)
FILL = (
    EVENT,
    "INSERT INTO audit_nodes VALUES (0, 0, '\\x00')",
    "INSERT INTO audit_checkpoints (size, note) VALUES (1, 'note')",
    "INSERT INTO audit_anchors (size, kind) VALUES (1, 'directory')",
    "INSERT INTO signing_keys (id, name, public_key) VALUES (gen_random_uuid(), 'l', '\\x00')",
    "INSERT INTO datasets (id, name, uri, definition, tombstone_key, status) "
    "VALUES (gen_random_uuid(), 'd', 'file:///d', '{}', '\\x00', 'pending')",
    "INSERT INTO deletion_requests (id, dataset_id, objective, exact, status, samples, "
    "duplicates, received_at, due_at) SELECT gen_random_uuid(), id, 'untrain_samples', false, "
    "'completed', 1, 0, now(), now() FROM datasets",
    "INSERT INTO certificates (request_id, number, envelope, payload_sha256) "
    "SELECT id, 1, '{}', '' FROM deletion_requests",
)
CHANGES = {
    "audit_events": "UPDATE audit_events SET event = 'nothing.happened'",
    "audit_leaves": "UPDATE audit_leaves SET position = 7",
    "audit_nodes": "UPDATE audit_nodes SET hash = '\\x01'",
    "audit_checkpoints": "UPDATE audit_checkpoints SET note = 'another'",
    "audit_anchors": "UPDATE audit_anchors SET receipt = '\\x01'",
    "certificates": "UPDATE certificates SET envelope = '{}'",
    "signing_keys": "UPDATE signing_keys SET name = 'another'",
}


def connect(url: str) -> psycopg.Connection:
    plain = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    return psycopg.connect(plain, autocommit=True)


@pytest.fixture
def filled(own_database_url):
    """A database with a row in each table of the trail, all written by the service's role."""
    with connect(own_database_url) as connection:
        for statement in FILL:
            connection.execute(statement)
    return own_database_url


@pytest.mark.parametrize("table", TRAIL)
@pytest.mark.parametrize("how", ["UPDATE", "DELETE FROM {}", "TRUNCATE {} CASCADE"])
def test_neither_the_service_nor_the_owner_changes_the_trail(filled, owner_url, table, how):
    statement = CHANGES[table] if how == "UPDATE" else how.format(table)
    for url, refusal in (
        (filled, errors.InsufficientPrivilege),
        (owner_url, errors.RaiseException),
    ):
        with connect(url) as connection:
            before = connection.execute(sql.SQL("SELECT * FROM {}").format(sql.Identifier(table)))
            kept = before.fetchall()
            with pytest.raises(refusal):
                connection.execute(statement)
            after = connection.execute(sql.SQL("SELECT * FROM {}").format(sql.Identifier(table)))
            assert after.fetchall() == kept != []


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO audit_leaves VALUES (99, 1)",
        "ALTER TABLE audit_events DISABLE TRIGGER ALL",
        "DROP TRIGGER append_only ON audit_events",
        "DROP TABLE audit_nodes",
        "ALTER TABLE audit_events ADD COLUMN x int",
        "CREATE OR REPLACE FUNCTION append_to_log() RETURNS trigger LANGUAGE plpgsql AS $$ "
        "BEGIN RETURN NULL; END $$",
        "SET session_replication_role = replica",
        "UPDATE alembic_version SET version_num = 'x'",
    ],
)
def test_the_service_has_no_way_around(filled, statement):
    with connect(filled) as connection, pytest.raises(errors.InsufficientPrivilege):
        connection.execute(statement)


def test_an_event_that_is_taken_back_leaves_no_gap(own_database_url):
    with connect(own_database_url) as connection:
        connection.execute(EVENT)
        with connection.transaction(force_rollback=True):
            connection.execute(EVENT)
        connection.execute(EVENT)

        positions = connection.execute("SELECT position FROM audit_leaves ORDER BY 1").fetchall()

    assert positions == [(0,), (1,)]
