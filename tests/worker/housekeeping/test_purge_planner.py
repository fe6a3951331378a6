"""Which versions' files are due for deletion, and when a job is queued for them."""

from datetime import timedelta

import pytest
from sqlalchemy import select

from domain import forgetting, jobs
from domain.states import JobStatus, VersionStatus
from domain.tables import Dataset, Job, Model, ModelVersion
from tests import factories
from tests.worker.old_versions import PAST, made, sweep, taken
from worker.engine import lease


@pytest.fixture
def versions(sync_sessions):
    """Version 1, superseded four days ago, and the champion; nobody looks at their files."""
    return made(sync_sessions, lambda *_: {})


def test_the_grace_is_the_policys(sync_sessions, versions, refreshed):
    _, new = versions
    with sync_sessions.begin() as session:
        session.get_one(Model, new.model_id).policy = {"grace": "PT36H"}
        forgetting.supersede(session, session.get_one(ModelVersion, new.id), actor="worker")

    row = refreshed(new)

    assert row.purge_after - row.superseded_at == timedelta(hours=36)


def test_what_is_not_due_stays(sync_sessions, versions):
    old, _ = versions
    later = factories.NOW + timedelta(hours=1)
    with sync_sessions.begin() as session:
        dataset = session.scalars(select(Dataset)).one()
        model = factories.model(dataset, name="other")
        job = factories.job(model_id=model.id, finished=True)
        waiting = factories.version(
            model, job, status=VersionStatus.SUPERSEDED, superseded_at=PAST, purge_after=later
        )
        for row in (model, job, waiting):
            session.add(row)
            session.flush()

    queued = sweep(sync_sessions)

    with sync_sessions() as session:
        assert [session.get_one(Job, job_id).model_id for job_id in queued] == [old.model_id]


def test_it_does_not_take_the_place_of_an_unlearning_job(sync_sessions, versions):
    old, _ = versions
    with sync_sessions.begin() as session:
        session.add(factories.job(model_id=old.model_id))

    assert len(sweep(sync_sessions)) == 2


def test_one_at_a_time_is_planned_and_one_that_failed_not_at_once_again(sync_sessions, versions):
    [job_id] = sweep(sync_sessions)
    assert sweep(sync_sessions) == [job_id]
    held = taken(sync_sessions, job_id)
    with sync_sessions.begin() as session:
        jobs.fail(
            session, lease.hold(session, held), actor="worker", kind="storage", reason="Full."
        )

    assert sweep(sync_sessions) == []

    with sync_sessions.begin() as session:
        session.get_one(Job, job_id).finished_at = factories.NOW - timedelta(hours=2)
    assert len(sweep(sync_sessions)) == 1


def test_a_job_that_may_still_read_the_version_is_waited_for(sync_sessions, versions):
    old, _ = versions
    running = {"status": JobStatus.RUNNING, "lease_until": factories.NOW + timedelta(days=1)}
    reader = factories.job(model_id=old.model_id, started_at=PAST - timedelta(minutes=1), **running)
    with sync_sessions.begin() as session:
        session.add(reader)

    assert sweep(sync_sessions) == []

    with sync_sessions.begin() as session:
        session.get_one(Job, reader.id).started_at = PAST + timedelta(minutes=1)
    assert len(sweep(sync_sessions)) == 1
