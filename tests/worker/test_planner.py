"""The sweep: which requests become which job, and what is freed."""

from datetime import timedelta

from sqlalchemy import create_engine, func, select
from sqlalchemy.orm import sessionmaker

from service.progress import PLANNING_LOCK
from service.states import JobStatus, Objective, RequestStatus
from service.tables import DeletionTarget, Job
from tests import factories
from worker import planner, protocol


def ask(session, dataset, *models, **changes):
    """A pending request to these models."""
    request = factories.request(dataset, **changes)
    session.add(request)
    session.flush()
    session.add_all(factories.target(request, model) for model in models)
    session.flush()
    return request


def jobs(session):
    return session.scalars(select(Job).order_by(Job.created_at, Job.id)).all()


def test_waiting_requests_of_a_model_share_one_job(session, dataset, model):
    requests = [ask(session, dataset, model) for _ in range(3)]

    planner.plan(session)

    (job,) = jobs(session)
    for request in requests:
        session.refresh(request)
        assert request.status is RequestStatus.SCHEDULED
    assert set(session.scalars(select(DeletionTarget.job_id))) == {job.id}


def test_planning_twice_changes_nothing(session, dataset, model):
    ask(session, dataset, model)

    planner.plan(session)
    planner.plan(session)

    assert len(jobs(session)) == 1


def test_a_request_joins_a_job_that_still_waits(session, dataset, model):
    ask(session, dataset, model)
    planner.plan(session)

    ask(session, dataset, model)
    planner.plan(session)

    (job,) = jobs(session)
    assert session.scalar(select(func.count()).where(DeletionTarget.job_id == job.id)) == 2


def test_a_request_that_comes_while_a_job_runs_waits_for_the_next(session, dataset, model):
    ask(session, dataset, model)
    planner.plan(session)
    (job,) = jobs(session)
    held = protocol.claim(session, job.id, worker="w", lease=timedelta(seconds=45))
    late = ask(session, dataset, model)

    planner.plan(session)
    session.refresh(late)
    assert late.status is RequestStatus.PENDING

    protocol.complete(session, protocol.hold(session, held))
    planner.plan(session)
    session.refresh(late)
    assert late.status is RequestStatus.SCHEDULED
    assert len(jobs(session)) == 2


def test_each_model_and_each_objective_has_its_own_job(session, dataset, model):
    other = factories.model(dataset, name="other")
    session.add(other)
    session.flush()
    ask(session, dataset, model, other)
    later = factories.NOW + timedelta(days=1)
    removal = ask(session, dataset, model, objective=Objective.REMOVE_CLASS, created_at=later)

    planner.plan(session)

    assert {(job.model_id, job.objective) for job in jobs(session)} == {
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
        (job.model_id, job.id) for job in jobs(session)
    }


def test_an_expired_lease_puts_the_job_back(session, model):
    session.add(factories.job(model_id=model.id))
    session.flush()
    (job,) = jobs(session)
    protocol.claim(session, job.id, worker="w", lease=timedelta(seconds=-1))

    planner.free_expired(session, max_losses=3)

    session.refresh(job)
    assert job.status is JobStatus.QUEUED
    assert job.losses == 1


def test_a_lease_that_still_runs_is_left_alone(session, model):
    session.add(factories.job(model_id=model.id))
    session.flush()
    (job,) = jobs(session)
    protocol.claim(session, job.id, worker="w", lease=timedelta(seconds=45))

    planner.free_expired(session, max_losses=3)

    session.refresh(job)
    assert job.status is JobStatus.RUNNING


def test_only_one_sweep_works_at_a_time(own_database_url):
    engine = create_engine(own_database_url)
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
