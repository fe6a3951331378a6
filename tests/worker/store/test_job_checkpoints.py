"""Checkpoints last as long as their job, and the audit trail records their deletion."""

import os
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from sqlalchemy import func, select, update

from domain import jobs
from domain.settings import WorkerSettings
from domain.states import JobStatus
from domain.tables import AuditEvent, IdempotencyKey, JobCheckpoint
from tests import factories
from worker.engine import lease
from worker.housekeeping import cleaning
from worker.store import job_checkpoints
from worker.store.artifacts import Store
from worker.store.job_checkpoints import Folder


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


@pytest.fixture
def job(sync_sessions):
    """A running job with two checkpoint files, one of which has its row."""
    dataset = factories.dataset()
    model = factories.model(dataset)
    job = factories.job(model_id=model.id)
    with sync_sessions.begin() as session:
        for row in (dataset, model, job):
            session.add(row)
            session.flush()
        lease.claim(session, job.id, worker="w", lease=timedelta(minutes=1))
    return job


@pytest.fixture
def written(store, job, sync_sessions):
    folder = Folder(store, job.id)
    digests = [folder.put(name, lambda path: path.write_bytes(b"state")) for name in ("a", "b")]
    row = JobCheckpoint(job_id=job.id, round=1, attempt=1, cycle=1, name="b", sha256=digests[1])
    with sync_sessions.begin() as session:
        session.add(row)
    return folder


def end(sync_sessions, job):
    with sync_sessions.begin() as session:
        held = lease.Claim(job.id, 1, job.kind)
        jobs.complete(session, lease.hold(session, held), actor="worker")


def deletions(sync_sessions):
    with sync_sessions() as session:
        chosen = select(AuditEvent.data).filter_by(event="checkpoints.deleted")
        return session.scalars(chosen).all()


def test_those_of_an_open_job_stay(sync_sessions, store, job, written):
    job_checkpoints.delete_of_ended(sync_sessions, store)

    assert written.find("b", written.put("b", lambda path: path.write_bytes(b"state")))
    assert deletions(sync_sessions) == []


def test_those_of_an_ended_job_go_and_the_trail_proves_it(sync_sessions, store, job, written):
    end(sync_sessions, job)

    for _ in range(2):
        job_checkpoints.delete_of_ended(sync_sessions, store)

    assert not written.path.exists()
    assert deletions(sync_sessions) == [{"files": 2, "left": 0}]
    with sync_sessions() as session:
        assert session.scalars(select(JobCheckpoint)).all() == []


def test_rows_without_files_go_too(sync_sessions, store, job, written):
    end(sync_sessions, job)
    written.delete()

    job_checkpoints.delete_of_ended(sync_sessions, store)

    assert deletions(sync_sessions) == [{"files": 0, "left": 0}]


def test_a_folder_of_a_job_that_never_was_goes(sync_sessions, store):
    folder = Folder(store, uuid4())
    folder.put("a", lambda path: path.write_bytes(b"state"))

    job_checkpoints.delete_of_ended(sync_sessions, store)

    assert not folder.path.exists()


def test_a_damaged_file_is_not_found(written):
    digest = written.put("a", lambda path: path.write_bytes(b"state"))
    assert written.find("a", digest)
    (written.path / "a").write_bytes(b"stale")

    assert written.find("a", digest) is None
    assert written.find("c", digest) is None


@pytest.fixture
def settings(store):
    return WorkerSettings(
        database_url="postgresql://unused",
        broker_url="redis://unused",
        store=store.root,
        orphan_age=timedelta(0),
        idempotency_retention=timedelta(days=1),
    )


def test_what_a_running_job_has_written_stays_however_old_it_is(
    sync_sessions, store, job, settings
):
    long_ago = datetime.now(UTC) - timedelta(hours=9)
    files = {}
    for name, minutes in (("before", -1), ("since", 1)):
        files[name] = store.put(lambda path, name=name: path.write_bytes(name.encode()))
        written = (long_ago + timedelta(minutes=minutes)).timestamp()
        os.utime(store.path(files[name]), (written, written))
    with sync_sessions.begin() as session:
        session.execute(update(factories.Job).values(started_at=long_ago))

    cleaning.clean(sync_sessions, store, settings)
    assert [path.name for path in store.root.rglob("objects/*/*")] == [files["since"]]

    end(sync_sessions, job)
    cleaning.clean(sync_sessions, store, settings)
    assert not [*store.root.rglob("objects/*/*")]


def test_cleaning_removes_what_nobody_needs(sync_sessions, store, job, written, settings):
    kept, orphan = (store.put(lambda path, d=d: path.write_bytes(d)) for d in (b"kept", b"orphan"))
    request = factories.request(factories.dataset(id=uuid4()))
    with sync_sessions.begin() as session:
        model = session.scalars(select(factories.Model)).one()
        request.dataset_id = model.dataset_id
        session.add(factories.version(model, job, weights_sha256=kept))
        session.add(request)
        session.flush()
        for key in ("old", "new"):
            session.add(IdempotencyKey(key=key, fingerprint="f", request_id=request.id, asked=[]))
        session.flush()
        old = update(IdempotencyKey).filter_by(key="old")
        session.execute(old.values(created_at=func.now() - timedelta(days=2)))
    end(sync_sessions, job)

    cleaning.clean(sync_sessions, store, settings)

    assert [path.name for path in store.root.rglob("objects/*/*")] == [kept]
    assert orphan != kept
    assert not written.path.exists()
    with sync_sessions() as session:
        assert session.scalars(select(IdempotencyKey.key)).all() == ["new"]
        assert session.get_one(factories.Job, job.id).status is JobStatus.COMPLETED
