"""A failed job that an operator retries."""

from uuid import uuid4

import pytest
from sqlalchemy import select

from domain.states import JobKind, JobStatus, RegistrationStatus, RequestStatus
from domain.tables import AuditEvent, Job
from tests import factories

FAILURE = {"kind": "worker_lost", "reason": "killed"}


def failed_job(**changes):
    return factories.job(
        status=JobStatus.FAILED, failure=FAILURE, attempt=3, losses=3, finished_at=factories.NOW,
        **changes,
    )  # fmt: skip


@pytest.fixture
async def failed(store, model):
    """A request that failed with its job."""
    status = RequestStatus.FAILED
    request = factories.request(
        factories.dataset(id=model.dataset_id), status=status, finished_at=factories.NOW
    )
    job = failed_job(model_id=model.id)
    await store(job, request, factories.target(request, model, job_id=job.id, status=status))
    return request, job


async def retry(client, job):
    return await client.post(f"/v1/jobs/{job.id}/retry")


async def test_it_is_queued_with_all_its_attempts_and_its_requests_wait_for_it(
    client, sessions, failed, queue
):
    request, job = failed

    read = await retry(client, job)

    assert read.status_code == 200
    assert (read.json()["status"], read.json()["failure"]) == ("queued", None)
    assert (read.json()["losses"], read.json()["attempt"]) == (0, 3)
    waits = (await client.get(f"/v1/deletion-requests/{request.id}")).json()
    assert (waits["status"], waits["finished_at"]) == ("scheduled", None)
    assert queue.send_task.called
    async with sessions() as session:
        told = (await session.execute(select(AuditEvent.event, AuditEvent.data))).all()
    assert ("job.retried", {"attempt": 3, "kind": "worker_lost"}) in told


async def test_only_one_that_failed_can_be(client, store, model, problem):
    job = factories.job(model_id=model.id, finished=True)
    await store(job)

    assert "completed" in problem(await retry(client, job), 409, "cannot-retry")["detail"]


async def test_not_while_another_job_has_the_model(client, store, model, failed, problem):
    _, job = failed
    other = factories.job(model_id=model.id)
    await store(other)

    assert str(other.id) in problem(await retry(client, job), 409, "cannot-retry")["detail"]


async def test_not_when_nobody_waits_for_it_any_more(client, failed, sessions, problem):
    request, job = failed
    await client.post(f"/v1/deletion-requests/{request.id}/cancel")

    problem(await retry(client, job), 409, "cannot-retry")

    async with sessions() as session:
        assert (await session.get_one(Job, job.id)).status is JobStatus.FAILED


async def test_an_estimate_is_asked_for_anew(client, store, model, problem):
    job = failed_job(model_id=model.id, kind=JobKind.ESTIMATE)
    await store(job)

    assert "new estimate" in problem(await retry(client, job), 409, "cannot-retry")["detail"]


async def test_a_purge_is_tried_again_beside_other_jobs(client, store, model):
    job = failed_job(model_id=model.id, kind=JobKind.PURGE)
    await store(job, factories.job(model_id=model.id))

    assert (await retry(client, job)).json()["status"] == "queued"


@pytest.mark.parametrize("kind", [JobKind.INDEX_DATASET, JobKind.REGISTER_MODEL])
async def test_a_registration_is_pending_again(client, store, kind):
    broken = {"status": RegistrationStatus.FAILED, "failure": "no disk"}
    dataset = factories.dataset(**broken if kind is JobKind.INDEX_DATASET else {})
    model = factories.model(dataset, **broken)
    of = {"dataset_id": dataset.id} if kind is JobKind.INDEX_DATASET else {"model_id": model.id}
    job = failed_job(kind=kind, **of)
    await store(dataset, model, job)

    assert (await retry(client, job)).status_code == 200

    where = "/v1/datasets/digits" if kind is JobKind.INDEX_DATASET else "/v1/models/cnn"
    read = (await client.get(where)).json()
    assert (read["status"], read["failure"]) == ("pending", None)


async def test_one_that_does_not_exist_is_a_problem(client, problem):
    problem(await client.post(f"/v1/jobs/{uuid4()}/retry"), 404, "not-found")


async def test_an_erasure_is_tried_again_though_its_dataset_is_ready(client, store, model):
    job = failed_job(kind=JobKind.ERASE_ROWS, dataset_id=model.dataset_id)
    await store(job)

    read = await retry(client, job)

    assert (read.status_code, read.json()["status"]) == (200, "queued")


async def test_a_check_of_a_file_is_tried_again_beside_others(client, store, model):
    of = {"kind": JobKind.CHECK_DATASET, "dataset_id": model.dataset_id}
    job = failed_job(**of)
    await store(job, factories.job(**of))

    assert (await retry(client, job)).json()["status"] == "queued"


async def test_an_erasure_is_tried_again_beside_a_check(client, store, model):
    job = failed_job(kind=JobKind.ERASE_ROWS, dataset_id=model.dataset_id)
    await store(job, factories.job(kind=JobKind.CHECK_DATASET, dataset_id=model.dataset_id))

    assert (await retry(client, job)).json()["status"] == "queued"
