"""Deleting models and datasets: refused while they are needed, else for good."""

import pytest
from sqlalchemy import select

from domain.states import JobKind, RegistrationStatus, RequestStatus, RowsStatus
from domain.tables import AuditEvent, Job, Model, ModelVersion
from tests import factories
from tests.service.submitting import submit

MODEL, DATASET = "/v1/models/cnn", "/v1/datasets/digits"


@pytest.fixture
async def gone(sessions, model):
    """The model is deleted and purged."""
    async with sessions.begin() as session:
        row = await session.get_one(Model, model.id)
        row.status = RegistrationStatus.DELETED
        row.deleted_at = row.purged_at = factories.NOW
        session.add(factories.job(kind=JobKind.PURGE, model_id=model.id, finished=True))
    return model


async def test_a_model_is_taken_out_of_use_and_its_purge_is_queued(
    client, model, store, sessions, queue
):
    job = factories.job(model_id=model.id, finished=True)
    candidate = factories.version(model, job, number=2, status="candidate")
    await store(job, candidate)

    first, again = await client.delete(MODEL), await client.delete(MODEL)

    assert first.status_code == again.status_code == 202
    made = first.json()
    assert (made["status"], made["champion"], made["purged_at"]) == ("deleted", None, None)
    assert made["deleted_at"]
    assert again.json() == made
    assert queue.send_task.called
    read = await client.get(first.headers["Location"])
    assert (read.json(), bool(read.headers["Retry-After"])) == (made, True)
    async with sessions() as session:
        versions = (await session.scalars(select(ModelVersion))).all()
        [purge] = (await session.scalars(select(Job).filter_by(kind=JobKind.PURGE))).all()
        [told] = (
            await session.scalars(select(AuditEvent.data).filter_by(event="model.deleted"))
        ).all()
    assert {version.status for version in versions} == {"superseded"}
    assert all(version.purge_after == version.superseded_at for version in versions)
    assert made["job_id"] == str(purge.id) == told["job"]
    assert told["versions"] == 2


@pytest.mark.parametrize(
    "status", [RequestStatus.PENDING, RequestStatus.NEEDS_REVIEW, RequestStatus.FAILED]
)
async def test_a_model_that_is_to_forget_something_stays(client, model, store, problem, status):
    ended = {"finished_at": factories.NOW} if status is RequestStatus.FAILED else {}
    request = factories.request(factories.dataset(id=model.dataset_id), status=status, **ended)
    await store(request, factories.target(request, model, status=status))

    told = problem(await client.delete(MODEL), 409, "in-use")["detail"]

    assert f"1 {status}" in told
    assert (await client.get(MODEL)).json()["status"] == "ready"


async def test_what_a_job_works_on_stays(client, model, store, problem):
    for kind, of in ((JobKind.ESTIMATE, "model_id"), (JobKind.CHECK_DATASET, "dataset_id")):
        target = model.id if of == "model_id" else model.dataset_id
        job = factories.job(kind=kind, **{of: target})
        await store(job)
        if of == "model_id":
            assert str(job.id) in problem(await client.delete(MODEL), 409, "in-use")["detail"]


async def test_nothing_new_comes_to_a_deleted_model(client, gone, problem, tmp_path):
    problem(await submit(client), 410, "deleted")
    assert (
        "no model that is ready"
        in problem(await submit(client, model=None, dataset="digits"), 409, "not-ready")["detail"]
    )
    estimate = {"model": "cnn", "sample_ids": ["t1"]}
    problem(await client.post("/v1/deletion-requests/estimate", json=estimate), 410, "deleted")
    version = {
        "weights": str(tmp_path / "new.safetensors"),
        "trained_on": {"split_read_at": "2026-11-01T00:00:00Z"},
    }
    headers = {"Idempotency-Key": "k"}
    problem(await client.post(f"{MODEL}/versions", json=version, headers=headers), 410, "deleted")
    definition = {
        "name": "cnn", "dataset": "digits", "weights": str(tmp_path / "a.safetensors"),
        "architecture": {"kind": "python", "factory": "nets.cnn:build"}, "head": "head",
    }  # fmt: skip
    assert (
        "stays taken"
        in problem(await client.post("/v1/models", json=definition), 409, "name-taken")["detail"]
    )


async def test_a_request_that_saw_the_model_before_it_was_deleted_is_refused(
    client, model, sessions, problem, monkeypatch
):
    """As the database does with two transactions at once; here the statement is told so."""
    from service.deletion_requests import submission

    async with sessions.begin() as session:
        (await session.get_one(Model, model.id)).status = RegistrationStatus.DELETED
    seen = submission.TAKEN_BY_MODEL.replace("m.status AS model_status", "'ready' AS model_status")
    seen = seen.replace("model_status NOT IN ('failed', 'deleted')", "true")
    monkeypatch.setattr(submission, "TAKEN_BY_MODEL", seen)

    assert "deleted at this moment" in problem(await submit(client), 409, "not-ready")["detail"]


async def test_a_dataset_goes_after_its_models(client, model, store, sessions, problem, queue):
    assert "cnn" in problem(await client.delete(DATASET), 409, "in-use")["detail"]
    await client.delete(MODEL)
    assert "cnn" in problem(await client.delete(DATASET), 409, "in-use")["detail"]
    async with sessions.begin() as session:
        (await session.get_one(Model, model.id)).purged_at = factories.NOW
    held = factories.request(
        factories.dataset(id=model.dataset_id), status=RequestStatus.COMPLETED,
        finished_at=factories.NOW, rows_status=RowsStatus.HELD,
    )  # fmt: skip
    await store(held)
    assert "1 deletion requests" in problem(await client.delete(DATASET), 409, "in-use")["detail"]
    async with sessions.begin() as session:
        await session.delete(await session.get_one(type(held), held.id))

    first, again = await client.delete(DATASET), await client.delete(DATASET)

    assert first.status_code == 202
    assert first.json() == again.json()
    assert (first.json()["status"], first.json()["purged_at"]) == ("deleted", None)
    model_of_it = {
        "name": "other", "dataset": "digits", "weights": "/nowhere/a.safetensors",
        "architecture": {"kind": "python", "factory": "nets.cnn:build"}, "head": "head",
    }  # fmt: skip
    assert (await client.post("/v1/models", json=model_of_it)).status_code in (410, 422)
    checked = await client.post(f"{DATASET}/check", json={"sample_ids": ["t1"]})
    assert checked.json()["suppressed"] == []


async def test_what_there_is_not_cannot_be_deleted(client, problem):
    problem(await client.delete("/v1/models/none"), 404, "not-found")
    problem(await client.delete("/v1/datasets/none"), 404, "not-found")


async def test_a_version_of_a_deleted_model_is_not_handed_out(client, model, problem):
    await client.delete(MODEL)

    problem(await client.get(f"{MODEL}/versions/1/weights"), 409, "not-servable")
    problem(await client.get(f"{MODEL}/preview"), 404, "not-found")
