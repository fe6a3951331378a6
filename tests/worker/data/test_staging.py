"""Rows on their way in are seen by their own transaction only, and gone with it."""

from io import BytesIO

import pytest
from sqlalchemy import create_engine, func, select, text
from sqlalchemy.orm import sessionmaker

from devstack import roles
from domain.tables import staged_positions
from worker.data.staging import in_one_process, load


@pytest.fixture
def worker_sessions(own_database_url):
    engine = create_engine(roles.as_role(own_database_url, roles.ROLES["worker"]))
    yield sessionmaker(engine)
    engine.dispose()


def staged(session):
    return session.scalar(select(func.count()).select_from(staged_positions))


def test_two_at_once_do_not_see_each_other_and_leave_nothing(worker_sessions):
    with worker_sessions() as one, worker_sessions() as two:
        load(one, BytesIO(b"a,1\nb,2\n"), staged_positions)
        load(two, BytesIO(b"c,3\n"), staged_positions)
        assert (staged(one), staged(two)) == (2, 1)

        one.commit()

        assert (staged(one), staged(two)) == (0, 1)
        two.commit()
    with worker_sessions() as after:
        assert staged(after) == 0


def test_what_is_loaded_again_replaces_what_was_there(worker_sessions):
    with worker_sessions() as session:
        load(session, BytesIO(b"a,1\nb,2\n"), staged_positions)
        load(session, BytesIO(b"c,3\n"), staged_positions)

        assert session.scalars(select(staged_positions.c.sample_id)).all() == ["c"]
        session.rollback()
        assert staged(session) == 0


def test_staged_rows_are_grouped_by_one_process(worker_sessions):
    """And what comes after them by as many as Postgres likes."""
    asked = text("SHOW max_parallel_workers_per_gather")
    with worker_sessions() as session:
        before = session.scalar(asked)
        with in_one_process(session):
            assert session.scalar(asked) == "0"
        assert session.scalar(asked) == before != "0"
