"""Which job a worker does, whatever the doorbell that it heard was rung for."""

from datetime import timedelta

import pytest
from pydantic import ValidationError

from domain.settings import WorkerSettings
from domain.states import JobKind
from tests import factories
from worker.engine import lease, supervisor, taking
from worker.engine.supervisor import Orders

OLD, NEW = factories.NOW - timedelta(hours=1), factories.NOW
DELETIONS = [JobKind.UNLEARN, JobKind.ERASE_ROWS, JobKind.PURGE]


@pytest.fixture
def settings(own_database_url, tmp_path):
    def make(**changes):
        plain = {"database_url": own_database_url, "broker_url": "redis://nowhere"}
        return WorkerSettings(**plain, store=tmp_path, **changes)

    return make


@pytest.fixture
def jobs(session, dataset, model):
    """By their kinds: an estimate that waits longer than a deletion."""
    made = {
        JobKind.ESTIMATE: factories.job(kind=JobKind.ESTIMATE, model_id=model.id, created_at=OLD),
        JobKind.UNLEARN: factories.job(model_id=model.id, created_at=NEW),
    }
    session.add_all(made.values())
    request = factories.request(dataset, status="scheduled")
    session.add(request)
    session.flush()
    session.add(factories.target(request, model, status="scheduled", job_id=made["unlearn"].id))
    session.commit()
    return {kind: job.id for kind, job in made.items()}


@pytest.fixture
def take(sync_sessions, settings, monkeypatch):
    """Take what is to be done; the jobs that were tried. `others` are other workers' by then."""

    def take(*others, **changes):
        tried = []

        def run(job_id, sessions, _, *, worker, orders):
            tried.append(job_id)
            if job_id in others:
                return False
            with sessions.begin() as session:
                return lease.claim(session, job_id, worker=worker, lease=timedelta(1)) is not None

        monkeypatch.setattr(supervisor, "run", run)
        found = taking.do_most_urgent(
            sync_sessions, settings(**changes), worker="w", orders=Orders()
        )
        return found, tried

    return take


def test_the_most_urgent_is_done_and_then_the_next(take, jobs):
    assert take() == (True, [jobs["unlearn"]])
    assert take() == (True, [jobs["estimate"]])
    assert take() == (False, [])


def test_what_another_worker_takes_meanwhile_is_left_to_it(take, jobs):
    assert take(jobs["unlearn"]) == (True, [jobs["unlearn"], jobs["estimate"]])


def test_a_worker_takes_the_kinds_it_is_told_to(take, jobs):
    rest = [kind for kind in JobKind if kind not in DELETIONS]

    assert take(job_kinds=rest) == (True, [jobs["estimate"]])
    assert take(job_kinds=rest) == (False, [])
    assert take(job_kinds=DELETIONS) == (True, [jobs["unlearn"]])


def test_a_worker_of_some_kinds_looks_more_often(settings):
    often = settings(job_kinds=DELETIONS)

    assert taking.looks_every(often) == often.sweep_interval
    assert taking.looks_every(settings()) == often.poll_interval > often.sweep_interval
    rarely = {"poll_interval": timedelta(seconds=1), "job_kinds": DELETIONS}
    assert taking.looks_every(settings(**rarely)) == timedelta(seconds=1)


def test_every_worker_takes_all_kinds_unless_it_is_told(settings):
    assert {*settings().job_kinds} == {*JobKind}
    with pytest.raises(ValidationError, match="at least one kind"):
        settings(job_kinds=[])
