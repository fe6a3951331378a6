"""Offering a version that was trained elsewhere: once, and with room made for it."""

from datetime import timedelta

import pytest
from sqlalchemy import select

from domain.states import JobKind, JobStatus, RegistrationStatus, RequestStatus
from domain.tables import AuditEvent, Job, Model, VersionRegistration
from tests import factories

URL = "/v1/models/cnn/versions"
READ_AT = {"split_read_at": "2026-11-01T06:00:00+01:00"}


@pytest.fixture
def offer(client, tmp_path):
    """Offer weights that lie where the service may read."""

    async def send(key="k1", url=URL, **changes):
        body = {"weights": str(tmp_path / "new.safetensors"), "trained_on": READ_AT} | changes
        return await client.post(url, json=body, headers={"Idempotency-Key": key})

    return send


@pytest.fixture
def at_work(store, model):
    """A job of the model for a request, both as keywords say."""

    async def make(*, due=timedelta(days=20), attempt=1, kind=JobKind.UNLEARN):
        dataset = factories.dataset(id=model.dataset_id)
        running = {"status": JobStatus.RUNNING, "lease_until": factories.NOW + timedelta(hours=1)}
        state = running if attempt else {}
        job = factories.job(model_id=model.id, kind=kind, attempt=attempt, **state)
        status = RequestStatus.RUNNING if attempt else RequestStatus.SCHEDULED
        request = factories.request(dataset, status=status, due_at=factories.NOW + due)
        target = factories.target(request, model, status=status, job_id=job.id)
        await store(job, request, target)
        return job, request

    return make


async def test_it_is_stored_once_however_often_it_is_sent(offer, client, model, sessions, problem):
    first, again = await offer(), await offer()

    assert first.status_code == again.status_code == 202
    made = first.json()
    assert made == again.json()
    assert (made["status"], made["version"], made["found"]) == ("pending", None, None)
    assert made["trained_on"]["split_read_at"].startswith("2026-11-01T05:00:00")
    followed = await client.get(first.headers["Location"])
    assert followed.json() == made
    assert followed.headers["Retry-After"]
    problem(await offer(accept_memory=True), 422, "idempotency-key-reused")
    assert made["job_id"] in problem(await offer("k2"), 409, "model-busy")["detail"]
    async with sessions() as session:
        jobs = (await session.scalars(select(Job).filter_by(kind=JobKind.REGISTER_VERSION))).all()
        [told] = (await session.scalars(select(AuditEvent.data).filter_by(
            event="version.offered"
        ))).all()  # fmt: skip
    assert [str(job.id) for job in jobs] == [made["job_id"]]
    assert (told["registration"], told["declared"]) == (made["id"], "split")


@pytest.mark.parametrize("attempt", [0, 1])
async def test_a_job_at_work_makes_room_and_what_it_serves_waits(
    offer, at_work, sessions, client, attempt
):
    job, request = await at_work(attempt=attempt)

    assert (await offer()).status_code == 202

    async with sessions() as session:
        assert (await session.get_one(Job, job.id)).status is JobStatus.CANCELLED
    read = (await client.get(f"/v1/deletion-requests/{request.id}")).json()
    assert (read["status"], read["targets"][0]["job_id"]) == ("pending", None)


async def test_a_job_for_what_is_due_soon_is_not_ended(offer, at_work, sessions, problem):
    job, _ = await at_work(due=timedelta(days=2))

    told = problem(await offer(), 409, "model-busy")["detail"]

    assert str(job.id) in told
    async with sessions() as session:
        assert (await session.get_one(Job, job.id)).status is JobStatus.RUNNING


async def test_what_cannot_be_taken_is_refused(offer, model, store, sessions, problem, client):
    problem(await offer(url="/v1/models/none/versions"), 404, "not-found")
    problem(await offer(weights="/etc/passwd"), 422, "location-refused")
    problem(await offer(trained_on={"uri": "/etc/passwd"}), 422, "location-refused")
    problem(await offer(weights=str(offer.__code__.co_filename)), 422, "location-refused")
    both = {"uri": "x", **READ_AT}
    for wrong in ({}, both, {"split_read_at": "2026-11-01T06:00:00"}):
        problem(await offer(trained_on=wrong), 422, "invalid-request")
    keyless = await client.post(URL, json={"weights": "x", "trained_on": READ_AT})
    problem(keyless, 400, "idempotency-key-missing")
    problem(await client.get(f"/v1/models/cnn/registrations/{model.id}"), 404, "not-found")
    async with sessions.begin() as session:
        (await session.get_one(Model, model.id)).status = RegistrationStatus.FAILED
    problem(await offer(), 409, "not-ready")


async def test_pickled_weights_are_refused(offer, model, tmp_path, problem):
    problem(await offer(weights=str(tmp_path / "new.pt")), 422, "weights-refused")


async def test_a_refused_one_can_be_retried(offer, model, sessions, client):
    made = (await offer()).json()
    async with sessions.begin() as session:
        row = (await session.scalars(select(VersionRegistration))).one()
        job = await session.get_one(Job, row.job_id)
        row.status, row.failure = RegistrationStatus.FAILED, "so it is"
        job.status, job.attempt = JobStatus.RUNNING, 1
        job.lease_until = factories.NOW
        await session.flush()
        job.status, job.lease_until = JobStatus.FAILED, None
        job.failure = {"kind": "input", "reason": "so it is"}

    assert (await client.post(f"/v1/jobs/{made['job_id']}/retry")).status_code == 200

    url = f"/v1/models/cnn/registrations/{made['id']}"
    assert (await client.get(url)).json()["status"] == "pending"
