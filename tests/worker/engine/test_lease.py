"""Which worker has a job: claims, leases, the fencing token, and lost jobs."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from functools import partial

import pytest
from sqlalchemy import select, update
from sqlalchemy.orm import sessionmaker

from domain import jobs, requests
from domain.errors import JobEnded, LeaseLost
from domain.states import JobStatus, RegistrationStatus, RequestStatus
from domain.tables import AuditEvent, DeletionRequest, DeletionTarget, Job
from tests import acting, factories
from tests.factories import NOW
from worker.engine import lease
from worker.housekeeping import planner

LEASE = timedelta(seconds=45)
OVER = timedelta(seconds=-1)


@pytest.fixture
def job(session, model):
    job = factories.job(model_id=model.id)
    session.add(job)
    session.flush()
    return job


@pytest.fixture
def request_row(session, dataset, model, job):
    """A request that the job serves."""
    request = factories.request(dataset, status=RequestStatus.SCHEDULED)
    session.add(request)
    session.flush()
    session.add(factories.target(request, model, status=RequestStatus.SCHEDULED, job_id=job.id))
    session.flush()
    return request


def claim(session, job, until=LEASE):
    return lease.claim(session, job.id, worker="w", lease=until)


def status_of(session, row):
    session.flush()
    session.refresh(row)
    return row.status


def events(session):
    return session.scalars(select(AuditEvent.event).order_by(AuditEvent.id)).all()


def test_a_job_is_claimed_once(session, job, request_row):
    first, second = claim(session, job), claim(session, job)

    assert first.attempt == 1
    assert second is None
    assert status_of(session, request_row) is RequestStatus.RUNNING
    assert events(session) == ["job.started", "request.running"]


def test_a_job_whose_lease_ran_out_waits_for_the_sweep_which_counts_the_loss(session, job):
    claim(session, job, until=OVER)
    assert claim(session, job) is None

    planner.free_expired(session, max_losses=3)

    assert claim(session, job).attempt == 2
    assert job.losses == 1


def test_a_finished_job_cannot_be_claimed(session, job):
    held = claim(session, job)
    jobs.complete(session, lease.hold(session, held), actor="worker")

    assert claim(session, job) is None


@pytest.mark.parametrize("end", [jobs.complete, partial(jobs.fail, kind="bug", reason="Oh.")])
def test_an_attempt_learns_that_it_has_ended_the_job_itself(session, job, request_row, end):
    held = claim(session, job)
    end(session, lease.hold(session, held), actor="worker")

    with pytest.raises(JobEnded):
        lease.hold(session, held)
    with pytest.raises(LeaseLost) as lost:
        lease.hold(session, replace(held, attempt=held.attempt + 1))
    assert not isinstance(lost.value, JobEnded)


def test_whoever_lost_the_lease_writes_nothing(session, job):
    stale = claim(session, job, until=OVER)
    planner.free_expired(session, max_losses=3)
    claim(session, job)

    with pytest.raises(LeaseLost):
        lease.renew(session, stale, lease=LEASE)
    with pytest.raises(LeaseLost):
        lease.report(session, stale, phase="late", progress=0.9)
    with pytest.raises(LeaseLost):
        lease.hold(session, stale)
    session.refresh(job)
    assert job.phase == "starting"


def test_completing_a_job_completes_what_it_serves(session, job, request_row):
    held = claim(session, job)

    jobs.complete(session, lease.hold(session, held), actor="worker")

    assert status_of(session, job) is JobStatus.COMPLETED
    assert status_of(session, request_row) is RequestStatus.COMPLETED
    assert request_row.finished_at is not None
    assert events(session)[-2:] == ["job.completed", "request.completed"]


def test_a_request_of_two_models_ends_with_the_last_of_them(session, dataset, job, request_row):
    other = factories.model(dataset, name="other")
    session.add(other)
    session.flush()
    second = factories.job(model_id=other.id)
    session.add(second)
    session.flush()
    session.add(
        factories.target(request_row, other, status=RequestStatus.SCHEDULED, job_id=second.id)
    )
    session.flush()

    jobs.complete(session, lease.hold(session, claim(session, job)), actor="worker")
    assert status_of(session, request_row) is RequestStatus.RUNNING

    jobs.complete(session, lease.hold(session, claim(session, second)), actor="worker")
    assert status_of(session, request_row) is RequestStatus.COMPLETED


def test_one_failed_model_fails_the_request_when_the_others_are_done(
    session, dataset, job, request_row
):
    other = factories.model(dataset, name="other")
    session.add(other)
    session.flush()
    session.add(factories.target(request_row, other, status=RequestStatus.COMPLETED))
    session.flush()

    held = claim(session, job)
    jobs.fail(session, lease.hold(session, held), actor="worker", kind="input", reason="no weights")

    assert status_of(session, request_row) is RequestStatus.FAILED
    assert job.failure == {"kind": "input", "reason": "no weights"}


def test_a_lost_job_goes_back_to_the_queue_and_fails_the_third_time(session, job, request_row):
    for _ in range(2):
        held = claim(session, job)
        jobs.lose(session, lease.hold(session, held), actor="worker", why="killed", max_losses=3)
        assert status_of(session, job) is JobStatus.QUEUED
        assert status_of(session, request_row) is RequestStatus.SCHEDULED

    held = claim(session, job)
    jobs.lose(session, lease.hold(session, held), actor="worker", why="killed", max_losses=3)

    assert status_of(session, job) is JobStatus.FAILED
    assert job.failure["kind"] == "worker_lost"
    assert status_of(session, request_row) is RequestStatus.FAILED


def test_a_job_given_back_in_good_order_has_lost_nothing(session, job):
    for _ in range(5):
        held = claim(session, job)
        jobs.release(
            session, lease.hold(session, held), actor="worker", why="the worker was stopped"
        )

    assert status_of(session, job) is JobStatus.QUEUED
    assert job.losses == 0


@pytest.mark.parametrize("kind", ["index_dataset", "register_model"])
def test_a_failed_registration_says_why(session, dataset, model, kind):
    named = dataset if kind == "index_dataset" else model
    key = "dataset_id" if kind == "index_dataset" else "model_id"
    job = factories.job(kind=factories.JobKind(kind), **{key: named.id})
    session.add(job)
    session.flush()

    held = claim(session, job)
    jobs.fail(
        session, lease.hold(session, held), actor="worker", kind="input", reason="no such file"
    )

    assert status_of(session, named) is RegistrationStatus.FAILED
    assert named.failure == "no such file"


def test_requests_never_leave_a_final_status(session, job, request_row):
    jobs.complete(session, lease.hold(session, claim(session, job)), actor="worker")
    for status in RequestStatus:
        jobs.move_requests(session, job.id, status, actor="worker")

        assert status_of(session, request_row) is RequestStatus.COMPLETED


def test_every_change_of_a_request_is_in_the_audit_trail(session, job, request_row):
    held = claim(session, job)
    jobs.lose(session, lease.hold(session, held), actor="worker", why="killed", max_losses=3)
    jobs.complete(session, lease.hold(session, claim(session, job)), actor="worker")

    told = [event for event in events(session) if event.startswith("request.")]
    assert told == [
        "request.running",
        "request.scheduled",
        "request.running",
        "request.completed",
    ]


def test_the_database_refuses_two_open_jobs_of_one_model(session, model, job):
    session.add(factories.job(model_id=model.id))

    with pytest.raises(Exception, match="jobs_one_open_per_model_idx"):
        session.flush()


def test_targets_are_untouched_by_other_jobs(session, dataset, model, job, request_row):
    claimed = {"status": JobStatus.RUNNING, "lease_until": NOW}
    failed = {"status": JobStatus.FAILED, "lease_until": None, "failure": {"kind": "x"}}
    for values in (claimed, failed):
        session.execute(update(Job).values(values))
    other = factories.job(model_id=model.id)
    session.add(other)
    session.flush()

    jobs.complete(session, lease.hold(session, claim(session, other)), actor="worker")

    target = session.scalars(select(DeletionTarget)).one()
    assert target.status is RequestStatus.SCHEDULED
    assert session.scalars(select(DeletionRequest.status)).one() is RequestStatus.SCHEDULED


def test_a_target_that_was_done_from_the_start_does_not_count_as_work(
    session, dataset, job, request_row
):
    other = factories.model(dataset, name="other")
    session.add(other)
    session.flush()
    session.add(factories.target(request_row, other, status=RequestStatus.COMPLETED))
    session.flush()

    requests.sum_up(session, [request_row.id], actor="worker")

    assert status_of(session, request_row) is RequestStatus.SCHEDULED


def test_two_jobs_that_end_at_once_complete_the_request_they_share(own_database_url):
    engine = acting.engine(own_database_url)
    sessions = sessionmaker(engine, expire_on_commit=False)
    with sessions.begin() as session:
        session.add(dataset := factories.dataset())
        session.flush()
        models = [factories.model(dataset, name=name) for name in ("a", "b")]
        session.add_all(models)
        session.flush()
        both = [factories.job(model_id=model.id) for model in models]
        request = factories.request(dataset, status=RequestStatus.SCHEDULED)
        session.add_all([*both, request])
        session.flush()
        session.add_all(
            factories.target(request, model, status=RequestStatus.SCHEDULED, job_id=job.id)
            for model, job in zip(models, both, strict=True)
        )
    held = []
    for job in both:
        with sessions.begin() as session:
            held.append(claim(session, job))
    together = threading.Barrier(2)

    def end(mine):
        with sessions.begin() as session:
            job = lease.hold(session, mine)
            together.wait(10)
            jobs.complete(session, job, actor="worker")

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(end, held))

    with sessions() as session:
        status = session.scalars(select(DeletionRequest.status)).one()
    engine.dispose()
    assert status is RequestStatus.COMPLETED


def test_a_job_may_leave_the_decision_to_a_person(session, job, request_row):
    held = lease.hold(session, claim(session, job))

    jobs.complete(session, held, actor="worker", requests=RequestStatus.NEEDS_REVIEW)

    assert status_of(session, job) is JobStatus.COMPLETED
    assert status_of(session, request_row) is RequestStatus.NEEDS_REVIEW
    assert request_row.finished_at is None


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [
        (("needs_review", "running"), "needs_review"),
        (("needs_review", "failed"), "needs_review"),
        (("refused", "completed"), "refused"),
        (("refused", "failed"), "failed"),
        (("refused", "pending"), "pending"),
        (("completed", "completed"), "completed"),
        (("completed", "cancelled"), "cancelled"),
        (("refused", "cancelled"), "refused"),
        (("pending", "cancelled"), "pending"),
    ],
)
def test_a_request_sums_its_targets_up(session, dataset, statuses, expected):
    request = factories.request(dataset, status=RequestStatus.RUNNING)
    models = [factories.model(dataset, name=name) for name in ("a", "b")]
    session.add_all([request, *models])
    session.flush()
    for model, status in zip(models, statuses, strict=True):
        session.add(factories.target(request, model, status=RequestStatus(status)))
    session.flush()

    requests.sum_up(session, [request.id], actor="worker")

    assert status_of(session, request) == expected


def test_only_lawful_steps_are_taken(session, model, job, request_row):
    for status in (RequestStatus.REFUSED, RequestStatus.FAILED, RequestStatus.NEEDS_REVIEW):
        of_job = DeletionTarget.job_id == job.id
        assert requests.move(session, status, of_job, actor="api", job_id=job.id) == []

    assert status_of(session, request_row) is RequestStatus.SCHEDULED
