from datetime import UTC, datetime
from typing import Any
from unittest.mock import ANY
from uuid import uuid4

import pytest
from sqlalchemy import select

from domain import doorbell
from domain.states import JobKind, JobStatus
from domain.tables import (
    DeletionRequest,
    DeletionTarget,
    EstimateSample,
    EstimateTarget,
    Job,
    Tombstone,
)
from tests import factories
from tests.service.submitting import count

URL = "/v1/deletion-requests/estimate"


async def ask(client: Any, **body: Any) -> Any:
    body = {"model": "cnn", "sample_ids": ["t1", "t2"]} | body
    return await client.post(URL, json={name: v for name, v in body.items() if v is not None})


async def test_is_accepted_and_followed_at_its_location(client, model, queue):
    response = await ask(client, sample_ids=["t1", "h0", "t1"])

    assert response.status_code == 202
    assert response.headers["Retry-After"] == "2"
    body = response.json()
    assert response.headers["Location"] == f"/v1/deletion-requests/estimates/{body['id']}"
    followed = await client.get(response.headers["Location"])
    assert followed.json() == body
    assert followed.headers["Retry-After"] == "2"
    assert body == {
        "id": ANY,
        "status": "queued",
        "objective": "untrain_samples",
        "exact": False,
        "dataset": "digits",
        "samples": 2,
        "subjects": 0,
        "resolved": None,
        "duplicates": 1,
        "created_at": ANY,
        "targets": [
            {
                "model": "cnn",
                "status": "queued",
                "job_id": ANY,
                "already_forgotten": 0,
                "not_trained_on": 1,
                "former": 0,
                "result": None,
                "failure": None,
            }
        ],
    }
    (rung,) = queue.send_task.call_args_list
    assert rung.args[0] == doorbell.RUN
    assert rung.kwargs["args"] == (body["targets"][0]["job_id"],)


async def test_changes_nothing_but_its_own_tables(client, model, sessions):
    await ask(client)

    assert await count(sessions, DeletionRequest, DeletionTarget, Tombstone) == [0, 0, 0]
    async with sessions() as session:
        job = (await session.scalars(select(Job).filter_by(kind=JobKind.ESTIMATE))).one()
        named = await session.scalars(select(EstimateSample.sample_id).filter_by(job_id=job.id))
        assert sorted(named) == ["t1", "t2"]


async def test_each_model_of_a_dataset_is_asked(client, model, store, sessions):
    dataset = factories.Dataset
    async with sessions() as session:
        dataset = (await session.scalars(select(factories.Dataset))).one()
    other = factories.model(dataset, name="vit")
    await store(other)

    body = (await ask(client, model=None, dataset="digits")).json()

    assert [target["model"] for target in body["targets"]] == ["cnn", "vit"]
    assert await count(sessions, EstimateSample) == [4]


@pytest.mark.parametrize("kind", [JobKind.UNLEARN, JobKind.ESTIMATE])
async def test_may_be_asked_while_a_job_is_open(client, model, store, kind):
    await store(factories.job(model_id=model.id, kind=kind))

    assert (await ask(client)).status_code == 202


async def test_unknown_ids_are_refused_and_nothing_is_stored(client, model, sessions, problem):
    response = await ask(client, sample_ids=["t1", "nobody"])

    body = problem(response, 422, "unknown-samples")
    assert body["unknown_ids"] == ["nobody"]
    assert await count(sessions, EstimateSample, EstimateTarget) == [0, 0]


async def test_is_refused_as_a_deletion_request_is(client, model, problem):
    problem(await ask(client, model="other"), 404, "not-found")
    problem(await ask(client, sample_ids=[]), 422, "invalid-request")
    problem(await ask(client, exact=True), 422, "no-recipe")
    problem(await ask(client, sample_ids=["x"] * 100_001), 413, "too-many-samples")


async def test_one_that_does_not_exist_is_a_problem(client, problem):
    problem(await client.get(f"/v1/deletion-requests/estimates/{uuid4()}"), 404, "not-found")


@pytest.mark.parametrize(
    ("statuses", "total"),
    [
        (["queued", "queued"], "queued"),
        (["queued", "completed"], "running"),
        (["running", "failed"], "running"),
        (["completed", "failed"], "failed"),
        (["completed", "completed"], "completed"),
    ],
)
async def test_the_status_sums_up_the_jobs(client, model, store, sessions, statuses, total):
    async with sessions() as session:
        dataset = (await session.scalars(select(factories.Dataset))).one()
    await store(factories.model(dataset, name="vit"))
    body = (await ask(client, model=None, dataset="digits")).json()
    async with sessions.begin() as session:
        for target, status in zip(body["targets"], statuses, strict=True):
            job = await session.get_one(Job, target["job_id"])
            if status != "queued":
                job.status, job.lease_until = JobStatus.RUNNING, datetime.now(UTC)
                await session.flush()
            if status in ("completed", "failed"):
                job.status, job.lease_until = JobStatus(status), None
            if status == "failed":
                job.failure = {"kind": "input", "reason": "broken"}

    read = await client.get(f"/v1/deletion-requests/estimates/{body['id']}")

    assert read.json()["status"] == total
