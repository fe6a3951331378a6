"""Transactions are repeated while Postgres is unreachable, and for no other reason."""

import psycopg
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.orm import sessionmaker

from devstack import roles
from tests import acting
from worker.engine import retrying
from worker.engine.retrying import is_transient, transaction


@pytest.fixture
def sessions(own_database_url):
    engine = acting.engine(own_database_url)
    yield sessionmaker(engine)
    engine.dispose()


def test_a_transaction_whose_connection_was_cut_is_done_again(sessions, own_database_url):
    cut = []

    for attempt in transaction(sessions):
        with attempt as session:
            pid = session.scalar(text("SELECT pg_backend_pid()"))
            if not cut:
                cut.append(pid)
                terminate(own_database_url, pid)
            answer = session.scalar(text("SELECT 42"))

    assert answer == 42
    assert pid not in cut


def ask(sessions, statement, tries):
    for attempt in transaction(sessions):
        with attempt as session:
            tries.append(1)
            session.scalar(text(statement))


def terminate(url, pid):
    superuser = create_engine(roles.as_role(url, roles.SUPERUSER))
    with superuser.begin() as other:
        other.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})
    superuser.dispose()


def test_patience_ends(monkeypatch):
    monkeypatch.setattr(retrying, "GIVE_UP_S", 0.5)
    gone = sessionmaker(create_engine("postgresql+psycopg://nobody@localhost:1/nothing"))

    with pytest.raises(OperationalError):
        ask(gone, "SELECT 1", [])


@pytest.mark.parametrize("statement", ["SELECT 1 / 0", "SELECT * FROM nothing"])
def test_what_will_not_pass_is_tried_once(sessions, statement):
    tries = []

    with pytest.raises(DBAPIError) as refused:
        ask(sessions, statement, tries)

    assert tries == [1]
    assert not is_transient(refused.value)


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (psycopg.errors.AdminShutdown(), True),
        (psycopg.errors.CannotConnectNow(), True),
        (psycopg.OperationalError("connection refused"), True),
        (psycopg.errors.DiskFull(), False),
        (psycopg.errors.DeadlockDetected(), True),
    ],
)
def test_what_passes_by_itself(error, passes):
    assert is_transient(OperationalError("SELECT 1", {}, error)) is passes
    assert not is_transient(ValueError())
