"""Parquet files that are checked before a training run, as a client sees it."""

from typing import Any
from unittest.mock import ANY
from uuid import uuid4

import pytest
from sqlalchemy import func, select

from domain import doorbell
from domain.states import JobKind, JobStatus
from domain.tables import AuditEvent, DatasetCheck, Job
from tests import factories


@pytest.fixture
def uri(tmp_path) -> str:
    return (tmp_path / "run-7.parquet").as_uri()


@pytest.fixture
def checked(store, model, uri):
    """A check whose job has ended; by keyword, the answer."""

    async def put(job: Job, **answer: Any) -> str:
        check = DatasetCheck(
            id=uuid4(), dataset_id=model.dataset_id, job_id=job.id, uri=uri, column="id", **answer
        )
        await store(job, check)
        return f"/v1/datasets/digits/checks/{check.id}"

    return put


async def ask(client: Any, dataset: str = "digits", **body: Any) -> Any:
    return await client.post(f"/v1/datasets/{dataset}/check", json=body)


async def test_is_accepted_and_followed_at_its_location(client, model, uri):
    response = await ask(client, uri=uri)

    assert response.status_code == 202
    body = response.json()
    assert response.headers["Location"] == f"/v1/datasets/digits/checks/{body['id']}"
    assert response.headers["Retry-After"] == "2"
    followed = await client.get(response.headers["Location"])
    assert followed.json() == body
    assert followed.headers["Retry-After"] == "2"
    assert body == {
        "id": ANY,
        "dataset": "digits",
        "status": "queued",
        "job_id": ANY,
        "uri": uri,
        "column": "sample_id",
        "rows": None,
        "suppressed": None,
        "positions": None,
        "failure": None,
        "created_at": ANY,
    }


async def test_queues_a_job_rings_for_it_and_tells_the_audit_trail(
    client, model, uri, sessions, queue
):
    body = (await ask(client, uri=uri, column="id")).json()

    async with sessions() as session:
        job = (await session.scalars(select(Job).filter_by(kind=JobKind.CHECK_DATASET))).one()
        event = (await session.scalars(select(AuditEvent))).one()
    assert (body["column"], body["job_id"]) == ("id", str(job.id))
    assert (job.dataset_id, job.model_id) == (model.dataset_id, None)
    assert (event.actor, event.event, event.subject_id) == ("api", "job.queued", job.id)
    assert event.data == {"dataset": str(model.dataset_id)}
    queue.send_task.assert_called_once_with(doorbell.RUN, args=(str(job.id),), expires=60)
    listed = (await client.get("/v1/jobs", params={"kind": "check_dataset"})).json()["items"]
    assert [(item["id"], item["dataset"]) for item in listed] == [(str(job.id), "digits")]


async def test_the_answer_has_positions_and_is_not_sent_again(client, checked):
    job = factories.job(kind=JobKind.CHECK_DATASET, finished=True)
    where = await checked(job, rows=12, suppressed=2, positions=[3, 7])

    response = await client.get(where)

    body = response.json()
    assert (body["status"], body["failure"]) == ("completed", None)
    assert (body["rows"], body["suppressed"], body["positions"]) == (12, 2, [3, 7])
    assert "Retry-After" not in response.headers
    known = {"If-None-Match": response.headers["ETag"]}
    assert (await client.get(where, headers=known)).status_code == 304


async def test_a_failure_is_that_of_its_job(client, checked):
    failure = {"kind": "input", "reason": "There is no such file."}
    job = factories.job(kind=JobKind.CHECK_DATASET, status=JobStatus.FAILED, failure=failure)

    body = (await client.get(await checked(job))).json()

    assert (body["status"], body["failure"], body["positions"]) == ("failed", failure, None)


async def test_may_be_asked_of_one_dataset_many_times_at_once(client, model, store, uri):
    await store(factories.job(model_id=model.id))

    first, second = await ask(client, uri=uri), await ask(client, uri=uri)

    assert (first.status_code, second.status_code) == (202, 202)
    assert first.json()["id"] != second.json()["id"]


async def test_leaves_the_registration_as_it_is(client, store, uri):
    dataset = factories.dataset()
    await store(
        dataset, factories.job(dataset_id=dataset.id, kind=JobKind.INDEX_DATASET, finished=True)
    )
    before = (await client.get("/v1/datasets/digits")).json()

    await ask(client, uri=uri)

    assert (await client.get("/v1/datasets/digits")).json() == before


@pytest.mark.parametrize(
    "body",
    [{}, {"column": "id"}, {"sample_ids": ["t1"], "uri": "{uri}"}],
    ids=["neither", "column", "both"],
)
async def test_one_form_is_to_be_chosen(client, model, uri, body, problem):
    asked = {name: uri if value == "{uri}" else value for name, value in body.items()}

    (error,) = problem(await ask(client, **asked), 422, "invalid-request")["errors"]

    assert "exactly one of `sample_ids` and `uri`" in error["msg"]


@pytest.mark.parametrize(
    "body",
    [
        {"uri": "http://["},
        {"uri": ""},
        {"uri": "{uri}", "column": ""},
        {"uri": "{uri}", "columns": "id"},
        {"sample_ids": ["t1"], "column": "id"},
    ],
    ids=str,
)
async def test_a_wrong_question_is_refused(client, model, uri, body, problem):
    asked = {name: uri if value == "{uri}" else value for name, value in body.items()}

    problem(await ask(client, **asked), 422, "invalid-request")


@pytest.mark.parametrize("outside", ["/etc/passwd", "https://example.org/x", "{root}/../outside"])
async def test_a_uri_outside_the_roots_is_refused(
    client, model, sessions, tmp_path, outside, problem
):
    response = await ask(client, uri=outside.format(root=tmp_path))

    problem(response, 422, "location-refused")
    async with sessions() as session:
        assert await session.scalar(select(func.count(DatasetCheck.id))) == 0


async def test_what_does_not_exist_is_a_problem(client, store, checked, uri, problem):
    where = await checked(factories.job(kind=JobKind.CHECK_DATASET))
    await store(factories.dataset(name="elsewhere"))

    problem(await ask(client, "nobody", uri=uri), 404, "not-found")
    problem(await client.get(f"/v1/datasets/digits/checks/{uuid4()}"), 404, "not-found")
    problem(await client.get(where.replace("digits", "elsewhere")), 404, "not-found")


async def test_both_answers_are_documented(client):
    document = (await client.get("/openapi.json")).json()

    answers = document["paths"]["/v1/datasets/{name}/check"]["post"]["responses"]
    named = {
        status: answers[status]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
        for status in ("200", "202")
    }
    assert named == {"200": "Checked", "202": "CheckRead"}
