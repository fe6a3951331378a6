"""Which of the jobs that wait is taken first."""

from datetime import timedelta

import pytest

from domain import urgency
from domain.states import BESIDE_OTHERS, JobKind, RequestStatus
from tests import factories

DAY, HOUR = timedelta(days=1), timedelta(hours=1)


@pytest.fixture
def queued(session, dataset):
    """Queue a job, of a model of its own unless one is given, with requests that it serves."""
    age = iter(range(1000))

    def queue(kind, *requests, model=None, waiting=(), **more):
        if model is None:
            model = factories.model(dataset, name=f"m{next(age)}")
            session.add(model)
            session.flush()
        created = factories.NOW - timedelta(seconds=next(age))  # what is queued later is older
        job = factories.job(kind=kind, model_id=model.id, created_at=created, **more)
        session.add(job)
        session.flush()
        scheduled = {"status": RequestStatus.SCHEDULED, "job_id": job.id}
        for changes, of_target in [(each, scheduled) for each in requests] + [*waiting]:
            request = factories.request(dataset, **changes)
            session.add(request)
            session.flush()
            session.add(factories.target(request, model, **of_target))
        session.flush()
        return job.id

    return queue


def due(days):
    return {"due_at": factories.NOW + days * DAY}


def test_every_kind_has_its_place():
    assert urgency.PLACES.keys() == {*JobKind}


def test_deletions_come_first_and_the_training_of_references_last(session, queued):
    kinds = [
        JobKind.UNLEARN, JobKind.PURGE, JobKind.REGISTER_MODEL, JobKind.ESTIMATE,
        JobKind.TRAIN_REFERENCES,
    ]  # fmt: skip
    jobs = {kind: queued(kind, *[due(30)] * (kind is JobKind.UNLEARN)) for kind in kinds}

    assert urgency.ready(session) == [jobs[kind] for kind in kinds]
    assert urgency.ready(session, {JobKind.PURGE, JobKind.ESTIMATE}) == [
        jobs[JobKind.PURGE], jobs[JobKind.ESTIMATE],
    ]  # fmt: skip


def test_the_earliest_due_date_comes_first_and_an_urgent_one_is_due_now(session, queued):
    urgent = {"urgent": True, "created_at": factories.NOW - HOUR}
    later = queued(JobKind.UNLEARN, due(20), due(9))
    now = queued(JobKind.UNLEARN, due(30), due(30) | urgent)
    overdue = queued(JobKind.UNLEARN, due(-1))
    soon = queued(JobKind.UNLEARN, due(5), due(25))

    assert urgency.ready(session) == [overdue, now, soon, later]


def test_of_what_is_as_urgent_the_oldest_comes_first(session, queued):
    young, old = queued(JobKind.ESTIMATE), queued(JobKind.ESTIMATE)

    assert urgency.ready(session) == [old, young]


def test_a_job_that_keeps_a_request_waiting_takes_its_place(session, queued):
    """Else a deletion would wait behind all there is, for the least urgent of all jobs."""
    kind = JobKind.TRAIN_REFERENCES
    held_back = {"waits_until": factories.NOW + DAY}
    other = queued(JobKind.UNLEARN, due(9))
    in_vain = queued(kind, waiting=[(due(8), {"former": 1})])
    idle = queued(kind, waiting=[(due(1), held_back)])
    blocking = queued(kind, waiting=[(due(7), {})])
    estimate = queued(JobKind.ESTIMATE, waiting=[(due(6), {})])

    assert urgency.ready(session) == [blocking, in_vain, other, estimate, idle]
    assert JobKind.ESTIMATE in BESIDE_OTHERS


def test_what_runs_or_is_to_wait_is_not_ready(session, queued):
    queued(JobKind.PURGE, not_before=factories.NOW + DAY)
    queued(JobKind.PURGE, finished=True)

    assert urgency.ready(session) == []
