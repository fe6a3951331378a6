"""What becomes of the rows is told to the requests that named the samples."""

import pytest
from sqlalchemy import delete, func, select, update

from domain import jobs, requests, shredding
from domain.states import JobKind, RegistrationStatus, RequestStatus, RowsStatus
from domain.tables import (
    AuditEvent,
    Dataset,
    DeletionRequest,
    DeletionTarget,
    Job,
    RequestSample,
    WebhookDelivery,
    WebhookEndpoint,
)
from tests import factories
from worker.engine import lease
from worker.engine.workbench import Workbench
from worker.jobs.erase_rows import erase_rows


@pytest.fixture
def complete(sync_sessions, dataset):
    """Have a request for samples of the models that named it completed."""

    def run(*models, ids=("person-1",)):
        request = factories.request(dataset, status=RequestStatus.RUNNING, samples=len(ids))
        targets = [
            factories.target(request, model, status=RequestStatus.RUNNING) for model in models
        ]
        with sync_sessions.begin() as session:
            session.add(request)
            session.flush()
            session.add_all([*targets, *factories.request_samples(request, *ids)])
            session.flush()
            mine = DeletionTarget.request_id == request.id
            requests.move(session, RequestStatus.COMPLETED, mine, actor="worker", job_id=None)
        return request.id

    return run


@pytest.fixture
def rows_of(sync_sessions):
    """What a request knows of its rows: status, how many, by which job, and the ids it keeps."""

    def read(request_id):
        with sync_sessions.begin() as session:
            kept = select(func.count()).where(RequestSample.request_id == request_id)
            row = session.get_one(DeletionRequest, request_id, populate_existing=True)
            return row.rows_status, row.rows_left, row.rows_job_id, session.scalar(kept)

    return read


@pytest.fixture
def told(sync_sessions):
    """The events about a request's rows, with what they say; and what webhooks were told."""

    def read(request_id):
        with sync_sessions.begin() as session:
            chosen = select(AuditEvent.event, AuditEvent.data).filter_by(subject_id=request_id)
            events = session.execute(chosen.order_by(AuditEvent.id)).all()
            hooks = session.scalars(select(WebhookDelivery.event).order_by(WebhookDelivery.id))
            kinds = [name.removeprefix("lethe.deletion_request.") for name in hooks]
        return [(e, data) for e, data in events if "rows" in e], [k for k in kinds if "rows" in k]

    return read


@pytest.fixture
def hook(sync_sessions):
    with sync_sessions.begin() as session:
        session.add(WebhookEndpoint(url="https://hooks.example/", secret=b"s" * 32))


def test_rows_wait_for_their_job_and_are_then_erased(add_model, claimed, complete, rows_of, told):
    request = complete(add_model("a", "person-1"))
    waiting = rows_of(request)
    bench = claimed()

    erase_rows(bench)

    assert waiting == (RowsStatus.WAITING, None, None, 1)
    assert rows_of(request) == (RowsStatus.GONE, 0, bench.claim.job_id, 0)
    job = str(bench.claim.job_id)
    assert told(request)[0] == [("request.rows_erased", {"job": job})]


def test_a_failed_job_is_told_to_all_that_have_rows_left(
    sync_sessions, add_model, claimed, complete, rows_of, told, hook
):
    model = add_model("a", "person-1", "person-2")
    first, second = complete(model), complete(model, ids=["person-2"])
    bench = claimed()

    with sync_sessions.begin() as session:
        job = lease.hold(session, bench.claim)
        jobs.fail(session, job, actor="worker", kind="input", reason="the disk is read-only")

    for request in (first, second):
        assert rows_of(request) == (RowsStatus.FAILED, None, bench.claim.job_id, 1)
        assert told(request)[0] == [
            ("request.rows_kept", {"job": str(bench.claim.job_id), "why": "failed"})
        ]
    assert told(first)[1] == ["rows_kept"] * 2
    with sync_sessions.begin() as session:
        jobs.requeue(session, session.get_one(Job, bench.claim.job_id), actor="api")
    assert rows_of(first) == (RowsStatus.WAITING, None, None, 1)
    erase_rows(claimed(bench.claim.job_id))
    assert rows_of(first)[0] is rows_of(second)[0] is RowsStatus.GONE
    assert told(first)[1] == ["rows_kept"] * 2 + ["rows_erased"] * 2


def test_what_another_model_has_to_forget_is_held_until_it_has(
    sync_sessions, dataset, add_model, claimed, complete, rows_of, told, hook
):
    one, other = add_model("a", "person-1", "person-2"), add_model("b", "person-2")
    request = complete(one, ids=["person-1", "person-2"])
    erase_rows(claimed())
    held = rows_of(request)
    erase_rows(claimed())

    assert (held[0], held[1], held[3]) == (RowsStatus.HELD, 1, 2)
    assert [(event, data["why"], data["left"]) for event, data in told(request)[0]] == [
        ("request.rows_kept", "held", 1)
    ]
    with sync_sessions.begin() as session:
        job = session.scalars(select(Job).filter_by(model_id=other.id)).one()
        key = dataset.tombstone_key
        session.add(factories.tombstone(other, job, "person-1", key=key))
    erase_rows(claimed())
    assert rows_of(request)[:2] == (RowsStatus.GONE, 0)
    assert told(request)[1] == ["rows_kept", "rows_erased"]


def test_a_request_that_is_completed_meanwhile_waits_for_the_next_job(
    sync_sessions, dataset, add_model, claimed, complete, rows_of, monkeypatch
):
    model = add_model("a", "person-1")
    first, late = complete(model), []

    def report(self, phase, progress):
        if phase == "replacing the files":
            late.append(complete(model, ids=["person-5"]))

    monkeypatch.setattr(Workbench, "report", report)
    erase_rows(claimed())

    assert rows_of(first)[0] is RowsStatus.GONE
    assert rows_of(late[0])[0] is RowsStatus.WAITING


def test_where_nothing_is_erased_a_request_keeps_no_ids_and_knows_nothing(
    sync_sessions, dataset, definition, add_model, complete, rows_of
):
    with sync_sessions.begin() as session:
        session.execute(update(Dataset).values(definition=definition))

    assert rows_of(complete(add_model("a", "person-1"))) == (None, None, None, 0)


@pytest.mark.parametrize("everywhere", [True, False])
def test_of_a_request_without_ids_only_what_is_certain_is_said(
    sync_sessions, add_model, claimed, complete, rows_of, everywhere
):
    model = add_model("a", "person-1")
    add_model("b", status=RegistrationStatus.FAILED if everywhere else RegistrationStatus.READY)
    request = complete(model)
    with sync_sessions.begin() as session:
        session.execute(delete(RequestSample))

    erase_rows(claimed())

    expected = (RowsStatus.GONE, 0) if everywhere else (RowsStatus.HELD, None)
    assert rows_of(request)[:2] == expected


def test_a_shredded_request_keeps_no_ids(sync_sessions, add_model, complete, rows_of):
    request = complete(add_model("a", "person-1"))

    with sync_sessions.begin() as session:
        shredding.shred(session, [request], actor="worker")

    assert rows_of(request) == (RowsStatus.WAITING, None, None, 0)


def test_the_next_job_takes_up_what_one_could_not(
    sync_sessions, dataset, add_model, claimed, complete, rows_of
):
    request = complete(add_model("a", "person-1"))
    bench = claimed()
    with sync_sessions.begin() as session:
        job = lease.hold(session, bench.claim)
        jobs.fail(session, job, actor="worker", kind="input", reason="read-only")

    with sync_sessions.begin() as session:
        jobs.queue(session, JobKind.ERASE_ROWS, actor="worker", dataset_id=dataset.id)

    assert rows_of(request)[0] is RowsStatus.WAITING
