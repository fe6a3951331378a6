"""The sweep: which requests become which job, and what is freed."""

from datetime import timedelta

import pytest
from sqlalchemy import func, select, update
from sqlalchemy.orm import sessionmaker

from domain import jobs, requests, urgency
from domain.requests import PLANNING_LOCK
from domain.states import JobKind, JobStatus, Objective, RequestStatus
from domain.tables import AuditEvent, DeletionTarget, Job
from tests import acting, factories
from worker.engine import lease
from worker.housekeeping import planner


def ask(session, dataset, *models, **changes):
    """A pending request to these models."""
    request = factories.request(dataset, **changes)
    session.add(request)
    session.flush()
    session.add_all(factories.target(request, model) for model in models)
    session.flush()
    return request


def all_jobs(session):
    return session.scalars(select(Job).order_by(Job.created_at, Job.id)).all()


def test_waiting_requests_of_a_model_share_one_job(session, dataset, model):
    asked = [ask(session, dataset, model) for _ in range(3)]

    planner.plan(session)

    (job,) = all_jobs(session)
    for request in asked:
        session.refresh(request)
        assert request.status is RequestStatus.SCHEDULED
    assert set(session.scalars(select(DeletionTarget.job_id))) == {job.id}


def test_planning_twice_changes_nothing(session, dataset, model):
    ask(session, dataset, model)

    planner.plan(session)
    planner.plan(session)

    assert len(all_jobs(session)) == 1


def test_a_request_joins_a_job_that_still_waits(session, dataset, model):
    ask(session, dataset, model)
    planner.plan(session)

    ask(session, dataset, model)
    planner.plan(session)

    (job,) = all_jobs(session)
    assert session.scalar(select(func.count()).where(DeletionTarget.job_id == job.id)) == 2


@pytest.mark.parametrize(
    "changes", [{"urgent": True}, {"due_at": factories.NOW + timedelta(days=2)}, {}]
)
@pytest.mark.parametrize("begun", [True, False])
def test_who_cannot_wait_is_not_kept_by_the_training_of_reference_models(
    session, dataset, model, changes, begun
):
    training = factories.job(kind=JobKind.TRAIN_REFERENCES, model_id=model.id)
    session.add(training)
    session.flush()
    if begun:
        lease.claim(session, training.id, worker="w", lease=timedelta(seconds=45))
    request = ask(session, dataset, model, **changes)

    planner.plan(session)

    session.refresh(request)
    assert request.status is (RequestStatus.SCHEDULED if changes else RequestStatus.PENDING)
    if begun:
        return
    mine = session.scalars(select(Job.id).filter_by(kind=JobKind.UNLEARN)).all()
    assert urgency.ready(session) == [*mine, training.id]
    jobs.cancel(session, training, actor="worker")
    planner.plan(session)
    session.refresh(request)
    assert request.status is RequestStatus.SCHEDULED


def test_a_request_that_comes_while_a_job_runs_waits_for_the_next(session, dataset, model):
    ask(session, dataset, model)
    planner.plan(session)
    (job,) = all_jobs(session)
    held = lease.claim(session, job.id, worker="w", lease=timedelta(seconds=45))
    late = ask(session, dataset, model)

    planner.plan(session)
    session.refresh(late)
    assert late.status is RequestStatus.PENDING

    jobs.complete(session, lease.hold(session, held), actor="worker")
    planner.plan(session)
    session.refresh(late)
    assert late.status is RequestStatus.SCHEDULED
    assert len(all_jobs(session)) == 2


def test_each_model_and_each_objective_has_its_own_job(session, dataset, model):
    other = factories.model(dataset, name="other")
    session.add(other)
    session.flush()
    ask(session, dataset, model, other)
    later = factories.NOW + timedelta(days=1)
    removal = ask(session, dataset, model, objective=Objective.REMOVE_CLASS, created_at=later)

    planner.plan(session)

    assert {(job.model_id, job.objective) for job in all_jobs(session)} == {
        (model.id, Objective.UNTRAIN_SAMPLES),
        (other.id, Objective.UNTRAIN_SAMPLES),
    }
    session.refresh(removal)
    assert removal.status is RequestStatus.PENDING


def test_a_request_to_several_models_gets_a_job_of_each(session, dataset, model):
    other = factories.model(dataset, name="other")
    session.add(other)
    session.flush()
    both = ask(session, dataset, model, other)
    ask(session, dataset, other)

    planner.plan(session)

    served = session.scalars(select(DeletionTarget).filter_by(request_id=both.id)).all()
    assert {(target.model_id, target.job_id) for target in served} == {
        (job.model_id, job.id) for job in all_jobs(session)
    }


def test_an_expired_lease_puts_the_job_back(session, model):
    session.add(factories.job(model_id=model.id))
    session.flush()
    (job,) = all_jobs(session)
    lease.claim(session, job.id, worker="w", lease=timedelta(seconds=-1))

    planner.free_expired(session, max_losses=3)

    session.refresh(job)
    assert job.status is JobStatus.QUEUED
    assert job.losses == 1


def test_a_lease_that_still_runs_is_left_alone(session, model):
    session.add(factories.job(model_id=model.id))
    session.flush()
    (job,) = all_jobs(session)
    lease.claim(session, job.id, worker="w", lease=timedelta(seconds=45))

    planner.free_expired(session, max_losses=3)

    session.refresh(job)
    assert job.status is JobStatus.RUNNING


def test_only_one_sweep_works_at_a_time(own_database_url):
    engine = acting.engine(own_database_url)
    sessions = sessionmaker(engine)
    with sessions.begin() as session:
        dataset = factories.dataset()
        session.add(dataset)
        session.flush()
        session.add(model := factories.model(dataset))
        session.flush()
        session.add(factories.job(model_id=model.id))

    with sessions.begin() as other:
        other.scalar(select(func.pg_try_advisory_xact_lock(PLANNING_LOCK)))
        assert planner.sweep(sessions, max_losses=3) == []

    assert len(planner.sweep(sessions, max_losses=3)) == 1
    engine.dispose()


def batching(session, model, **policy):
    model.policy = {"batch": {"max_samples": 100} | policy}
    session.flush()


def waiting(session, dataset, *models, until=timedelta(hours=1), **changes):
    """A pending request that waits until then, from now."""
    request = ask(session, dataset, *models, **changes)
    for target in session.scalars(select(DeletionTarget).filter_by(request_id=request.id)):
        target.waits_until = session.scalar(select(func.now())) + until
    session.flush()
    return request


def placed(session):
    """How many requests each job has."""
    query = select(func.count()).where(DeletionTarget.job_id.is_not(None))
    return sorted(session.scalars(query.group_by(DeletionTarget.job_id)))


def test_one_that_waits_alone_waits_for_others_too(session, dataset, model):
    waiting(session, dataset, model)

    planner.plan(session)

    assert all_jobs(session) == []


def test_the_first_that_need_not_wait_takes_the_others_along(session, dataset, model):
    several = [waiting(session, dataset, model) for _ in range(2)]
    removal = waiting(session, dataset, model, objective=Objective.REMOVE_CLASS)
    planner.plan(session)
    assert all_jobs(session) == []

    waiting(session, dataset, model, until=timedelta(0))
    planner.plan(session)

    assert placed(session) == [3]
    for request in (*several, removal):
        session.refresh(request)
    assert [request.status for request in (*several, removal)] == [
        "scheduled", "scheduled", "pending",
    ]  # fmt: skip


def test_nobody_waits_once_a_job_is_full(session, dataset, model):
    batching(session, model)
    for _ in range(2):
        waiting(session, dataset, model, samples=50)

    planner.plan(session)

    assert placed(session) == [2]


def test_a_job_that_is_queued_anyway_is_joined_by_what_waits(session, dataset, model):
    ask(session, dataset, model)
    planner.plan(session)

    waiting(session, dataset, model)
    planner.plan(session)

    assert placed(session) == [2]


def test_what_was_in_a_job_does_not_wait_again(session, dataset, model):
    request = waiting(session, dataset, model, until=timedelta(0))
    planner.plan(session)
    (job,) = all_jobs(session)
    session.execute(update(DeletionTarget).values(waits_until=func.now() + timedelta(days=7)))
    jobs.cancel(session, job, actor="api")
    served = DeletionTarget.job_id == job.id
    requests.move(session, RequestStatus.PENDING, served, actor="api", job_id=None)

    planner.plan(session)

    session.refresh(request)
    assert request.status is RequestStatus.SCHEDULED


def test_a_job_takes_the_earliest_due_as_far_as_they_fit(session, dataset, model):
    batching(session, model)
    late, soon, sooner = (
        ask(session, dataset, model, samples=40, due_at=factories.NOW + timedelta(days=days))
        for days in (30, 20, 10)
    )

    planner.plan(session)

    assert placed(session) == [2]
    for request, status in ((late, "pending"), (soon, "scheduled"), (sooner, "scheduled")):
        session.refresh(request)
        assert request.status == status
    ask(session, dataset, model, samples=20, due_at=factories.NOW + timedelta(days=5))
    planner.plan(session)
    assert placed(session) == [3]


def test_an_urgent_one_is_in_the_first_job(session, dataset, model):
    """Whatever its due date, and whatever else would fill a job or is to be forgotten otherwise."""
    batching(session, model)
    for objective, days in ((Objective.REMOVE_CLASS, 5), (Objective.UNTRAIN_SAMPLES, 10)):
        due = factories.NOW + timedelta(days=days)
        ask(session, dataset, model, objective=objective, samples=80, due_at=due)
    urgent = ask(session, dataset, model, samples=80, urgent=True)

    planner.plan(session)

    assert placed(session) == [1]
    session.refresh(urgent)
    assert urgent.status is RequestStatus.SCHEDULED


def test_a_request_that_is_larger_than_a_job_gets_one_for_itself(session, dataset, model):
    batching(session, model)
    ask(session, dataset, model, samples=500)
    ask(session, dataset, model, samples=1, due_at=factories.NOW + timedelta(days=60))

    planner.plan(session)

    assert placed(session) == [1]


def test_no_request_joins_a_job_that_was_tried_before(session, dataset, model):
    """It goes on from its last cycle, with the samples it began with."""
    ask(session, dataset, model)
    planner.plan(session)
    (job,) = all_jobs(session)
    held = lease.claim(session, job.id, worker="w", lease=timedelta(minutes=1))
    jobs.release(session, lease.hold(session, held), actor="worker", why="the worker was stopped")
    session.flush()

    ask(session, dataset, model)
    planner.plan(session)

    assert placed(session) == [1]


def test_what_a_person_accepted_comes_first_and_alone(session, dataset, model):
    accepted = factories.job(model_id=model.id, finished=True)
    session.add(accepted)
    session.flush()
    others = [waiting(session, dataset, model), waiting(session, dataset, model)]
    anew = [ask(session, dataset, model), ask(session, dataset, model)]
    for request in anew:
        session.get_one(DeletionTarget, (request.id, model.id)).accepted_job_id = accepted.id

    planner.plan(session)
    [first] = (job for job in all_jobs(session) if job.id != accepted.id)
    served = select(DeletionTarget.request_id).where(DeletionTarget.job_id == first.id)
    late = ask(session, dataset, model)
    planner.plan(session)

    assert first.accepted_job_id == accepted.id
    assert set(session.scalars(served)) == {request.id for request in anew}
    statuses = [session.get_one(type(each), each.id).status for each in (*others, late)]
    assert statuses == [RequestStatus.PENDING] * 3


def test_overdue_is_said_once(session, dataset, model):
    late = ask(session, dataset, model, due_at=factories.NOW - timedelta(days=1))
    answered = ask(session, dataset, model, due_at=factories.NOW - timedelta(days=1))
    answered.status = RequestStatus.COMPLETED
    ask(session, dataset, model)
    session.flush()

    planner.mark_overdue(session)
    planner.mark_overdue(session)

    told = session.execute(select(AuditEvent.event, AuditEvent.subject_id)).all()
    assert told == [("request.overdue", late.id)]
    session.refresh(late)
    assert late.overdue_at is not None


def test_a_job_that_found_the_machine_at_fault_waits_longer_each_time(session, dataset, model):
    ask(session, dataset, model)
    planner.plan(session)
    (job,) = all_jobs(session)
    waits = []
    for _ in range(2):
        held = lease.claim(session, job.id, worker="w", lease=timedelta(minutes=1))
        full = lease.hold(session, held)
        jobs.lose(
            session, full, actor="worker", why="the disk is full", max_losses=3, kind="storage"
        )
        session.flush()
        assert lease.claim(session, job.id, worker="w", lease=timedelta(minutes=1)) is None
        session.refresh(job)
        waits.append(round((job.not_before - session.scalar(select(func.now()))).total_seconds()))
        job.not_before = None
        session.flush()

    assert waits == [10, 30]
