"""A job's life, whoever makes each step."""

import ast
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import func, select

import domain
from domain import jobs
from domain.states import JobKind, JobStatus, RegistrationStatus
from domain.tables import AuditEvent, Dataset, EstimateSample, Job
from tests import factories

REPOSITORY = Path(domain.__file__).parent.parent
WAYS_TO_END = {
    "complete": lambda session, job: jobs.complete(session, job, actor="worker"),
    "fail": lambda session, job: jobs.fail(session, job, actor="worker", kind="bug", reason="x"),
    "lose": lambda session, job: jobs.lose(session, job, actor="worker", why="x", max_losses=1),
    "cancel": lambda session, job: jobs.cancel(session, job, actor="api"),
}


@pytest.fixture
def session(sync_sessions):
    with sync_sessions() as session:
        yield session


@pytest.fixture
def model(session):
    dataset = factories.dataset()
    session.add(dataset)
    session.flush()
    session.add(model := factories.model(dataset))
    session.flush()
    return model


def told(session, job):
    session.flush()
    chosen = select(AuditEvent).filter_by(subject_id=job.id).order_by(AuditEvent.id)
    return [(each.actor, each.event, each.data) for each in session.scalars(chosen)]


def running(session, model, kind=JobKind.ESTIMATE):
    job = jobs.queue(session, kind, actor="api", model_id=model.id)
    jobs.start(session, job.id, actor="worker", worker="w", lease=timedelta(minutes=1))
    session.refresh(job)
    return job


def test_a_job_is_stored_and_told_of_by_whoever_queues_it(session, model):
    mine = jobs.queue(session, JobKind.PURGE, actor="worker", model_id=model.id)
    theirs = jobs.queue(session, JobKind.ERASE_ROWS, actor="api", dataset_id=model.dataset_id)

    assert mine.status is theirs.status is JobStatus.QUEUED
    assert told(session, mine) == [("worker", "job.queued", {"model": str(model.id)})]
    assert told(session, theirs) == [("api", "job.queued", {"dataset": str(model.dataset_id)})]


def test_a_job_may_be_queued_in_the_transaction_in_which_the_one_before_it_ends(session, model):
    before = running(session, model, JobKind.REGISTER_MODEL)

    jobs.complete(session, before, actor="worker")
    after = jobs.queue(session, JobKind.UNLEARN, actor="worker", model_id=model.id)

    assert (before.status, after.status) == (JobStatus.COMPLETED, JobStatus.QUEUED)


@pytest.mark.parametrize("way", WAYS_TO_END)
def test_the_ids_named_to_an_estimate_go_with_its_job_however_that_ends(session, model, way):
    job, other = running(session, model), running(session, model)
    for each in (job, other):
        session.add(EstimateSample(job_id=each.id, sample_id="t1"))
    session.flush()

    WAYS_TO_END[way](session, job)

    session.flush()
    assert session.scalars(select(EstimateSample.job_id)).all() == [other.id]
    session.refresh(job)
    assert job.finished_at is not None
    assert (job.lease_until, job.phase) == (None, None)


def test_a_cancelled_job_is_claimed_by_nobody(session, model):
    job = jobs.queue(session, JobKind.UNLEARN, actor="worker", model_id=model.id)

    jobs.cancel(session, job, actor="api")

    assert jobs.start(session, job.id, actor="worker", worker="w", lease=timedelta(1)) is None
    assert told(session, job)[-1] == ("api", "job.cancelled", {"attempt": 0})


def test_a_job_that_is_given_back_may_have_to_wait(session, model):
    job = running(session, model)

    jobs.release(session, job, actor="worker", why="so", wait=timedelta(minutes=1))

    session.flush()
    assert session.scalars(select(Job.id).where(*jobs.is_ready())).all() == []
    assert told(session, job)[-1][1:] == ("job.released", {"attempt": 1, "why": "so"})


@pytest.mark.parametrize(("losses", "seconds"), [(0, 10), (1, 30), (2, 30), (50, 30)])
def test_while_the_machine_is_at_fault_a_job_waits_longer_but_not_for_ever(
    session, model, losses, seconds
):
    job = running(session, model)
    job.losses = losses

    jobs.lose(session, job, actor="worker", why="full", max_losses=99, kind="storage")

    session.flush()
    wait = session.scalars(select(Job.not_before - func.now()).filter_by(id=job.id)).one()
    assert wait == timedelta(seconds=seconds)
    assert told(session, job)[-1][2] == {"attempt": 1, "why": "full", "kind": "storage"}


def test_a_job_that_is_tried_again_has_lost_nothing_yet(session, model):
    job = running(session, model)
    job.losses = 3
    jobs.fail(session, job, actor="worker", kind="storage", reason="full")

    jobs.requeue(session, job, actor="api")

    session.refresh(job)
    assert (job.status, job.losses, job.attempt) == (JobStatus.QUEUED, 0, 1)
    assert (job.failure, job.finished_at) == (None, None)
    assert told(session, job)[-1] == ("api", "job.retried", {"attempt": 1, "kind": "storage"})


def test_a_failed_registration_fails_the_model_in_the_name_of_the_same_actor(session, model):
    model.status = RegistrationStatus.PENDING
    session.flush()
    job = running(session, model, JobKind.REGISTER_MODEL)

    jobs.fail(session, job, actor="worker", kind="input", reason="no weights")

    assert (model.status, model.failure) == (RegistrationStatus.FAILED, "no weights")
    assert told(session, model) == [("worker", "model.failed", {"job": str(job.id)})]


def test_nobody_else_creates_jobs_or_changes_their_status():
    """Neither `Job(…)`, nor `job.status = …`, nor an UPDATE of it."""
    others = {}
    for folder in ("domain", "evidence", "service", "worker"):
        for file in (REPOSITORY / folder).rglob("*.py"):
            found = [
                node.lineno for node in ast.walk(ast.parse(file.read_text())) if is_a_step(node)
            ]
            if found:
                others[file.relative_to(REPOSITORY).as_posix()] = found
    assert others.keys() == {"domain/jobs.py"}


def is_a_step(node):
    if isinstance(node, ast.Call):
        creates = isinstance(node.func, ast.Name) and node.func.id == "Job"
        updates = isinstance(node.func, ast.Attribute) and node.func.attr == "values"
        return creates or (updates and any(is_status(word.value) for word in node.keywords))
    if isinstance(node, ast.Assign):
        assigned = [each for target in node.targets for each in ast.walk(target)]
        on_a_row = any(isinstance(each, ast.Attribute) for each in assigned)
        return on_a_row and any(is_status(each) for each in ast.walk(node.value))
    return False


def is_status(node):
    is_attribute = isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    return is_attribute and node.value.id == "JobStatus"


@pytest.mark.parametrize(
    "text",
    [
        "a NUL \0 and half a character \ud800", "\udfff", "\x1b[2J\x07\r\n\x85\u2028",
        "turned \u202e around", "x" * 1_000_000, "\0" * 100_000, "é😀" * 5_000, "",
    ],
)  # fmt: skip
def test_a_reason_is_bounded_and_storable_whatever_it_quotes(session, model, text):
    failed, lost, released = (running(session, model) for _ in range(3))
    reason = f"Column {text} is wrong. Convert it."

    jobs.fail(session, failed, actor="worker", kind="input", reason=reason)
    jobs.lose(session, lost, actor="worker", why=reason, max_losses=1)
    jobs.release(session, released, actor="worker", why=reason)

    session.flush()
    session.expire_all()
    shown = [
        failed.failure["reason"],
        lost.failure["reason"],
        told(session, released)[-1][2]["why"],
    ]
    for each in shown:
        assert 0 < len(each) <= jobs.LONGEST_REASON
        assert each.isprintable()
    assert shown[0].startswith("Column ")
    assert shown[0].endswith(" is wrong. Convert it.")  # what to do is not cut off
    assert shown[1].endswith("has it tried again.")


def test_what_stands_with_the_job_stands_with_what_it_registers(session, model):
    job = jobs.queue(session, JobKind.INDEX_DATASET, actor="api", dataset_id=model.dataset_id)
    jobs.start(session, job.id, actor="worker", worker="w", lease=timedelta(minutes=1))
    session.refresh(job)

    jobs.fail(session, job, actor="worker", kind="input", reason="a\0b")

    session.flush()
    assert session.get_one(Dataset, model.dataset_id).failure == r"a\x00b" == job.failure["reason"]
