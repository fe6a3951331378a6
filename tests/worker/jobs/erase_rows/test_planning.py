"""When rows are erased, and which jobs notice."""

from datetime import UTC, datetime, timedelta

from sqlalchemy import select, update

from domain import jobs, trail
from domain.events import RequestCompleted
from domain.states import JobKind, RequestStatus
from domain.tables import Dataset, Job
from tests import factories
from worker.housekeeping import planner
from worker.jobs.erase_rows import erase_rows


def plan(sessions):
    with sessions.begin() as session:
        planner.plan_erasures(session)
        return list(session.scalars(select(Job).filter_by(kind=JobKind.ERASE_ROWS)))


def complete_a_request(sessions, dataset):
    status = RequestStatus.COMPLETED
    request = factories.request(dataset, status=status, finished_at=datetime.now(UTC))
    with sessions.begin() as session:
        session.add(request)
        trail.record(session, "worker", request.id, RequestCompleted())


def test_a_completed_request_has_one_job_erase_and_the_next_one_another(
    sync_sessions, dataset, claimed
):
    assert plan(sync_sessions) == []
    complete_a_request(sync_sessions, dataset)
    complete_a_request(sync_sessions, dataset)

    [job] = plan(sync_sessions)
    assert job.dataset_id == dataset.id
    assert len(plan(sync_sessions)) == 1
    bench = claimed(job.id)
    complete_a_request(sync_sessions, dataset)  # it may have come too late for the job
    assert len(plan(sync_sessions)) == 1
    erase_rows(bench)
    [another] = {each.id for each in plan(sync_sessions)} - {job.id}
    erase_rows(claimed(another))
    assert len(plan(sync_sessions)) == 2


def test_where_nobody_asked_for_it_nothing_is_erased(sync_sessions, dataset, definition):
    with sync_sessions.begin() as session:
        session.execute(update(Dataset).values(definition=definition))
    complete_a_request(sync_sessions, dataset)

    assert plan(sync_sessions) == []


def test_a_job_whose_dataset_is_rewritten_meanwhile_knows_it(
    sync_sessions, dataset, add_model, claimed
):
    model = add_model("a")
    since = factories.NOW - timedelta(hours=1)
    with sync_sessions.begin() as session:
        reader = factories.job(model_id=model.id)
        session.add(reader)
        session.flush()
        assert not jobs.is_rewritten(session, reader, since=since)

    erase_rows(claimed())

    with sync_sessions.begin() as session:
        assert jobs.is_rewritten(session, reader, since=since)
        later = factories.NOW + timedelta(days=1)
        assert not jobs.is_rewritten(session, reader, since=later)
