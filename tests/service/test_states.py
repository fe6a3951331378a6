"""Registering another state of a dataset, and requests for what it no longer has."""

import pytest
from sqlalchemy import select, update

from domain.states import JobKind, RegistrationStatus
from domain.tables import AuditEvent, Dataset, DeletionTarget, FormerSample, Job, Sample
from tests import factories
from tests.service.submitting import submit

URL = "/v1/datasets/digits/states"


@pytest.fixture
def offer(client, tmp_path):
    async def send(key="k1", url=URL, **body):
        body = {"uri": str(tmp_path / "later.parquet")} | body
        return await client.post(url, json=body, headers={"Idempotency-Key": key})

    return send


@pytest.fixture
async def moved_on(sessions, model):
    """The dataset is in its second state: `t0` left it, `t1` changed, `t2` came. The model was
    trained before, and another one on what is there now."""
    async with sessions.begin() as session:
        await session.execute(update(Dataset).values(state=2))
        dataset = await session.get_one(Dataset, model.dataset_id)
        later = factories.model(dataset, name="later", state=2)
        session.add(later)
        for name in ("t0", "t1"):
            session.add(FormerSample(dataset_id=dataset.id, sample_id=name, since=1, removed_in=2))
        await session.delete(await session.get_one(Sample, (dataset.id, "t0")))
        changed = Sample.sample_id.in_(["t1", "t2"])
        await session.execute(update(Sample).where(changed).values(since=2))
    return model


async def test_a_state_is_stored_once_however_often_it_is_sent(
    offer, client, model, sessions, problem, queue
):
    first, again = await offer(), await offer()

    assert first.status_code == again.status_code == 202
    made = first.json()
    assert made == again.json()
    assert (made["status"], made["number"], made["found"]) == ("pending", None, None)
    assert queue.send_task.called
    assert (await client.get(first.headers["Location"])).json() == made
    problem(await offer(refuse_suppressed=True), 422, "idempotency-key-reused")
    assert made["job_id"] in problem(await offer("k2"), 409, "dataset-busy")["detail"]
    async with sessions() as session:
        jobs = (await session.scalars(select(Job.id).filter_by(kind=JobKind.INDEX_STATE))).all()
        events = select(AuditEvent.data).filter_by(event="dataset.state_registered")
        [told] = (await session.scalars(events)).all()
    assert [str(each) for each in jobs] == [made["job_id"]] == [told["job"]]


async def test_without_a_place_it_is_where_the_dataset_is(offer, model):
    assert (await offer(uri=None)).json()["uri"] == "file:///data/digits"


async def test_what_cannot_be_taken_is_refused(offer, model, sessions, problem, client):
    problem(await offer(url="/v1/datasets/none/states"), 404, "not-found")
    problem(await offer(uri="/etc/passwd"), 422, "location-refused")
    problem(await client.post(URL, json={}), 400, "idempotency-key-missing")
    problem(await client.get(f"{URL}/{model.id}"), 404, "not-found")
    async with sessions.begin() as session:
        (await session.get_one(Dataset, model.dataset_id)).status = RegistrationStatus.FAILED
    problem(await offer(), 409, "not-ready")
    async with sessions.begin() as session:
        (await session.get_one(Dataset, model.dataset_id)).status = RegistrationStatus.DELETED
    problem(await offer(), 410, "deleted")


@pytest.mark.parametrize("by", ["cnn", None])
async def test_a_request_says_what_each_model_knows_of_what_is_gone(
    client, moved_on, sessions, by, problem
):
    named = {"model": "cnn"} if by else {"model": None, "dataset": "digits"}
    answer = await submit(client, "k", sample_ids=["t0", "t1", "t2", "t3"], **named)

    assert answer.status_code == 202, answer.text
    told = {
        each["model"]: (each["former"], each["not_trained_on"], each["already_forgotten"])
        for each in answer.json()["targets"]
    }
    assert told["cnn"] == (2, 1, 0)  # t0 and t1 are gone, t2 came later
    if by is None:
        assert told["later"] == (0, 1, 0)  # t0 was not there any more
    again = await submit(client, "k", sample_ids=["t0", "t1", "t2", "t3"], **named)
    assert again.json() == answer.json()
    read = (await client.get(answer.headers["Location"])).json()
    assert {each["model"]: each["former"] for each in read["targets"]}["cnn"] == 2
    problem(await submit(client, sample_ids=["t0", "nobody"], **named), 422, "unknown-samples")


async def test_what_is_forgotten_does_not_wait(client, moved_on, store, sessions):
    job = factories.job(model_id=moved_on.id, finished=True)
    await store(job, *factories.tombstones(moved_on, job, "t0", "t1"))

    answer = (await submit(client, sample_ids=["t0", "t1"])).json()

    assert answer["status"] == "completed"
    assert answer["targets"][0]["former"] == 0
    async with sessions() as session:
        target = (await session.scalars(select(DeletionTarget))).one()
        assert target.already_forgotten == 2


async def test_a_dataset_and_a_model_say_which_state_they_are_in(client, moved_on, store):
    await store(
        factories.job(kind=JobKind.INDEX_DATASET, dataset_id=moved_on.dataset_id, finished=True)
    )
    assert (await client.get("/v1/datasets/digits")).json()["state"] == 2
    assert (await client.get("/v1/models/cnn")).json()["dataset_state"] == 1


async def test_an_estimate_says_what_each_model_knows_of_what_is_gone(client, moved_on):
    asked = {"dataset": "digits", "sample_ids": ["t0", "t1", "t2", "t3"]}
    answer = await client.post("/v1/deletion-requests/estimate", json=asked)

    assert answer.status_code == 202, answer.text
    read = (await client.get(answer.headers["Location"])).json()
    assert read == answer.json()
    told = {each["model"]: (each["former"], each["not_trained_on"]) for each in read["targets"]}
    assert told == {"cnn": (2, 1), "later": (0, 1)}  # as a request says it
