"""Old versions' files are deleted after their grace period, whatever happens meanwhile, and stay
deleted."""

import os
import signal
import subprocess
import sys

import pytest
from sqlalchemy import select
from sqlalchemy.orm import sessionmaker

from domain import forgetting, jobs
from domain.errors import JobError, StoreUnwritable
from domain.settings import WorkerSettings
from domain.states import JobStatus
from domain.tables import AuditEvent, Job, Model, ModelVersion
from tests import acting, factories
from tests.worker.old_versions import made, putting, sweep, taken
from worker.engine import lease
from worker.engine.workbench import Workbench
from worker.housekeeping import cleaning
from worker.jobs.purge import purge
from worker.store import version_files
from worker.store.artifacts import Store


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


@pytest.fixture
def put(store):
    return putting(store)


@pytest.fixture
def versions(sync_sessions, put):
    """Version 1, superseded four days ago, and the champion; they share a reservoir."""
    return made(sync_sessions, put)


def do(sessions, store, claim):
    """The job, which needs no settings and no device."""
    purge(Workbench(claim, sessions, store, None))


def digests(version):
    named = {name: getattr(version, name) for name in version_files.FILES}
    return {name: digest for name, digest in named.items() if digest is not None}


def purged(sessions):
    with sessions() as session:
        chosen = select(AuditEvent).filter_by(event="version.purged").order_by(AuditEvent.id)
        return [event.data for event in session.scalars(chosen)]


def test_what_is_due_is_deleted_but_for_what_another_version_names(
    sync_sessions, store, versions, refreshed
):
    old, new = versions
    [job_id] = sweep(sync_sessions)

    do(sync_sessions, store, taken(sync_sessions, job_id))

    assert store.listed([*digests(old).values(), *digests(new).values()]) == {
        *digests(new).values()
    }
    assert refreshed(old).purged_at is not None
    assert refreshed(new).purged_at is None
    assert purged(sync_sessions) == [
        {
            "model": str(old.model_id), "number": 1, "job": str(job_id), **digests(old),
            "deleted": 3, "kept": ["reservoir"], "left": 0,
        }
    ]  # fmt: skip
    with sync_sessions() as session:
        assert session.get_one(Job, job_id).status is JobStatus.COMPLETED
    assert sweep(sync_sessions) == []


def test_a_file_that_two_versions_name_goes_with_the_last(sync_sessions, store, versions):
    old, new = versions
    with sync_sessions.begin() as session:
        champion = session.get_one(ModelVersion, new.id)
        session.get_one(Model, new.model_id).policy = {"grace": "PT0S"}
        session.flush()
        forgetting.supersede(session, champion, actor="worker")
    [job_id] = sweep(sync_sessions)

    do(sync_sessions, store, taken(sync_sessions, job_id))

    assert store.listed([*digests(old).values(), *digests(new).values()]) == set()
    assert [event["kept"] for event in purged(sync_sessions)] == [["reservoir"], []]


def test_killed_in_between_the_next_attempt_comes_to_the_same_end(own_database_url, store, put):
    engine = acting.engine(own_database_url)
    sessions = sessionmaker(engine, expire_on_commit=False)
    old, _ = made(sessions, put)
    [job_id] = sweep(sessions)
    first = taken(sessions, job_id)

    killed = subprocess.run(
        [sys.executable, "-c", DIES, own_database_url, str(store.root), str(job_id)], check=False
    )

    assert killed.returncode == -signal.SIGKILL
    assert store.listed([old.weights_sha256]) == set()
    with sessions.begin() as session:
        assert session.get_one(ModelVersion, old.id).purged_at is None
        jobs.lose(
            session, lease.hold(session, first), actor="worker", why="it was killed", max_losses=3
        )
    do(sessions, store, taken(sessions, job_id))
    with sessions.begin() as session:
        assert session.get_one(ModelVersion, old.id).purged_at is not None
    [event] = purged(sessions)
    assert (event["deleted"], event["kept"], event["left"]) == (3, ["reservoir"], 0)
    engine.dispose()


DIES = """
import os, signal, sys
from pathlib import Path
from uuid import UUID
from sqlalchemy import create_engine
from sqlalchemy.orm import sessionmaker
from domain.states import JobKind
from worker.jobs import purge
from worker.store.artifacts import Store
from worker.engine.lease import Claim
from worker.engine.workbench import Workbench

url, root, job_id = sys.argv[1:]
delete = purge.delete_unnamed


def delete_and_die(*args):
    delete(*args)
    os.kill(os.getpid(), signal.SIGKILL)


purge.delete_unnamed = delete_and_die
sessions = sessionmaker(create_engine(url))
claim = Claim(UUID(job_id), 1, JobKind.PURGE)
purge.purge(Workbench(claim, sessions, Store(Path(root)), None))
"""
"""Deletes the files, and is killed before the transaction ends."""


def test_a_file_that_cannot_be_deleted_leaves_the_version_unpurged(
    sync_sessions, store, versions, refreshed, monkeypatch
):
    old, _ = versions
    [job_id] = sweep(sync_sessions)
    monkeypatch.setattr(Store, "remove", lambda self, digest: None)

    with pytest.raises(StoreUnwritable, match="3 deleted files are still listed"):
        do(sync_sessions, store, taken(sync_sessions, job_id))

    assert refreshed(old).purged_at is None
    assert purged(sync_sessions) == []


def test_a_job_names_no_file_that_was_deleted_since_it_put_it(sync_sessions, store, versions, put):
    mine = put(b"old weights", b"mine", b"both")
    [job_id] = sweep(sync_sessions)
    do(sync_sessions, store, taken(sync_sessions, job_id))

    with sync_sessions.begin() as session:
        version_files.keep_files(
            session, store, [mine["statistics_sha256"], mine["reservoir_sha256"]]
        )
        with pytest.raises(StoreUnwritable, match="1 new files were deleted from the store"):
            version_files.keep_files(session, store, mine.values())


def test_cleaning_removes_what_comes_back_and_what_is_misdated(sync_sessions, store, versions, put):
    old, new = versions
    [job_id] = sweep(sync_sessions)
    do(sync_sessions, store, taken(sync_sessions, job_id))
    put(b"old weights", b"old statistics", b"both")  # as from a backup
    ahead = factories.NOW.timestamp() + 86400
    os.utime(store.path(old.weights_sha256), (ahead, ahead))
    os.utime(store.path(old.statistics_sha256), (0, 0))
    settings = WorkerSettings(
        database_url="postgresql://unused", broker_url="redis://unused", store=store.root
    )

    cleaning.clean(sync_sessions, store, settings)

    assert store.listed([*digests(old).values(), *digests(new).values()]) == {
        *digests(new).values()
    }


def test_a_purged_version_is_not_to_be_restored(sync_sessions, store, versions):
    old, _ = versions
    [job_id] = sweep(sync_sessions)
    do(sync_sessions, store, taken(sync_sessions, job_id))

    with pytest.raises(JobError, match="is missing; unless its version was purged, restore"):
        store.path(old.weights_sha256)
