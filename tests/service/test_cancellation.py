"""A deletion request that is cancelled before it is answered."""

from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import select

from domain.states import JobStatus, RequestStatus
from domain.tables import AuditEvent, DeletionTarget, Job
from tests import factories

URL = "/v1/deletion-requests"


@pytest.fixture
def served(store, model) -> Any:
    """Requests that a job serves, both with this status; the requests and the job."""

    async def make(status: str, count: int = 1, **of_job: Any) -> tuple[list[Any], Job]:
        dataset = factories.dataset(id=model.dataset_id)
        wanted = RequestStatus(status)
        if wanted is RequestStatus.RUNNING:
            lease = {"lease_until": factories.NOW + timedelta(hours=1), "attempt": 1}
            of_job = {"status": JobStatus.RUNNING, **lease, **of_job}
        job = factories.job(model_id=model.id, **of_job)
        requests = [factories.request(dataset, status=wanted) for _ in range(count)]
        targets = [factories.target(each, model, job_id=job.id, status=wanted) for each in requests]
        await store(job, *requests, *targets)
        return requests, job

    return make


async def cancel(client, request):
    return await client.post(f"{URL}/{request.id}/cancel")


async def status_of(sessions, table, **key):
    async with sessions() as session:
        return (await session.scalars(select(table.status).filter_by(**key))).one()


async def events(sessions):
    async with sessions() as session:
        return list(await session.scalars(select(AuditEvent.event).order_by(AuditEvent.id)))


async def test_one_that_waits_is_cancelled_at_once(client, sessions, store, model, queue):
    request = factories.request(factories.dataset(id=model.dataset_id))
    await store(request, factories.target(request, model))

    read = await cancel(client, request)

    assert (read.status_code, read.json()["status"]) == (200, "cancelled")
    assert read.json()["finished_at"] is not None
    assert read.json()["targets"][0]["status"] == "cancelled"
    assert await events(sessions) == ["request.cancel_asked", "request.cancelled"]


async def test_a_queued_job_that_serves_nobody_else_goes_with_it(client, sessions, served):
    [request], job = await served("scheduled")

    assert (await cancel(client, request)).json()["status"] == "cancelled"

    assert await status_of(sessions, Job, id=job.id) is JobStatus.CANCELLED
    assert "job.cancelled" in await events(sessions)


async def test_a_queued_job_goes_on_for_the_others(client, sessions, served):
    [first, second], job = await served("scheduled", 2)

    await cancel(client, first)

    assert await status_of(sessions, Job, id=job.id) is JobStatus.QUEUED
    of_second = {"request_id": second.id}
    assert await status_of(sessions, DeletionTarget, **of_second) is RequestStatus.SCHEDULED


async def test_a_running_job_ends_and_the_others_wait_for_a_new_one(client, sessions, served):
    [first, second], job = await served("running", 2)

    await cancel(client, first)

    assert await status_of(sessions, Job, id=job.id) is JobStatus.CANCELLED
    read = (await client.get(f"{URL}/{second.id}")).json()
    assert (read["status"], read["targets"][0]["job_id"]) == ("pending", None)
    assert (await client.get(f"/v1/jobs/{job.id}")).json()["lease_until"] is None


async def test_twice_is_once(client, sessions, served):
    [request], _ = await served("scheduled")

    first, second = await cancel(client, request), await cancel(client, request)

    assert first.json() == second.json()
    assert (await events(sessions)).count("request.cancelled") == 1


async def test_what_one_model_forgot_stays_while_the_other_is_spared(
    client, sessions, store, model, served
):
    [request], _ = await served("scheduled")
    other = factories.model(factories.dataset(id=model.dataset_id), name="vit")
    done = factories.job(model_id=other.id, finished=True)
    forgot = factories.target(request, other, job_id=done.id, status=RequestStatus.COMPLETED)
    await store(other, done, forgot)

    read = (await cancel(client, request)).json()

    assert read["status"] == "cancelled"
    assert [target["status"] for target in read["targets"]] == ["cancelled", "completed"]


async def test_one_that_failed_can_be_taken_back(client, store, model):
    failed = RequestStatus.FAILED
    request = factories.request(factories.dataset(id=model.dataset_id), status=failed)
    failure = {"kind": "bug", "reason": "it broke"}
    job = factories.job(model_id=model.id, status=JobStatus.FAILED, failure=failure)
    await store(job, request, factories.target(request, model, job_id=job.id, status=failed))

    assert (await cancel(client, request)).json()["status"] == "cancelled"


@pytest.mark.parametrize(
    ("status", "advice"), [("completed", "stays forgotten"), ("needs_review", "decide `refuse`")]
)
async def test_too_late_is_a_problem_that_says_so(
    client, sessions, store, model, problem, status, advice
):
    status = RequestStatus(status)
    request = factories.request(factories.dataset(id=model.dataset_id), status=status)
    job = factories.job(model_id=model.id, finished=True)
    await store(job, request, factories.target(request, model, job_id=job.id, status=status))

    assert advice in problem(await cancel(client, request), 409, "cannot-cancel")["detail"]
    assert await status_of(sessions, DeletionTarget, request_id=request.id) is status


async def test_one_that_does_not_exist_is_a_problem(client, problem):
    problem(await client.post(f"{URL}/{uuid4()}/cancel"), 404, "not-found")
