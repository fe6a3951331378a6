"""What a person may decide after every round of a job got the verdict `fail`."""

import asyncio
from contextlib import asynccontextmanager
from itertools import chain, groupby
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import select

from devstack import roles
from domain import doorbell, sample_digests
from domain.database import async_engine, async_sessions
from domain.states import JobKind, Mode, RequestStatus, Verdict, VersionStatus
from domain.tables import (
    AuditEvent,
    MembershipStatistics,
    ModelVersion,
    OutOfSamplePrediction,
    Tombstone,
)
from tests import acting, factories
from tests.conftest import connect, speaking_to

URL = "/v1/deletion-requests"
GROUND = "Ms. Miller agrees"


def waiting(model, champion, *named, number=2):
    """Rows of a job that ended with `fail`, its candidate, and a request for each list of ids."""
    dataset = factories.dataset(id=model.dataset_id)
    job = factories.job(model_id=model.id, finished=True, verdict=Verdict.FAIL)
    review = RequestStatus.NEEDS_REVIEW
    requests = [factories.request(dataset, status=review) for _ in named]
    candidate = factories.version(
        model,
        job,
        number=number,
        status=VersionStatus.CANDIDATE,
        mode=Mode.APPROXIMATE,
        parent_id=champion.id,
    )
    samples = [
        row
        for request, ids in zip(requests, named, strict=True)
        for row in factories.request_samples(request, *ids)
    ]
    targets = [factories.target(each, model, job_id=job.id, status=review) for each in requests]
    return [
        job,
        factories.tried(job, verdict=Verdict.FAIL),
        candidate,
        *requests,
        *targets,
        *samples,
    ]


@pytest.fixture
def champion(sessions, model) -> Any:
    async def find(of=model) -> ModelVersion:
        async with sessions() as session:
            chosen = select(ModelVersion).filter_by(model_id=of.id, status=VersionStatus.CHAMPION)
            return (await session.scalars(chosen)).one()

    return find


@pytest.fixture
def review(store, model, champion) -> Any:
    """Requests that wait for a decision about one candidate."""

    async def make(*named, **changes) -> list[Any]:
        rows = waiting(model, await champion(), *named, **changes)
        await store(*rows)
        return [row for row in rows if isinstance(row, factories.DeletionRequest)]

    return make


async def decide(client, request, decision):
    body = {"decision": decision, "ground": GROUND}
    return await client.post(f"{URL}/{request.id}/decision", json=body)


async def status_of(client, request):
    return (await client.get(f"{URL}/{request.id}")).json()["status"]


async def test_shows_the_candidate_and_does_not_ask_to_be_polled(client, review):
    [request] = await review(["t1", "t2"])

    response = await client.get(f"{URL}/{request.id}")

    assert "Retry-After" not in response.headers
    body = response.json()
    assert (body["status"], body["finished_at"]) == ("needs_review", None)
    [target] = body["targets"]
    assert (target["result"]["version"], target["result"]["verdict"]) == (2, "fail")


async def test_accepting_serves_the_candidate(client, sessions, queue, review, champion):
    [request, sharing] = await review(["t1", "t2"], ["t2", "h0"])
    old = await champion()

    response = await decide(client, request, "accept")

    assert response.status_code == 200
    body = response.json()
    assert body["status"] == "completed"
    assert body["finished_at"] is not None
    assert body["targets"][0]["result"]["verdict"] == "fail"
    [decision] = body["decisions"]
    assert (decision["decision"], decision["ground"]) == ("accept", GROUND)
    assert decision["decided_by"] == "admin"
    assert await status_of(client, sharing) == "completed"
    new = await champion()
    assert (new.number, new.parent_id) == (2, old.id)
    async with sessions() as session:
        buried = set(await session.scalars(select(Tombstone.digest)))
        before = await session.get_one(ModelVersion, old.id)
    assert buried == {sample_digests.digest(factories.KEY, name) for name in ("t1", "t2", "h0")}
    assert (before.status, before.superseded_at is None) == (VersionStatus.SUPERSEDED, False)
    queue.send_task.assert_called_once_with(doorbell.SWEEP, args=(), expires=60)


async def test_what_reference_models_said_goes_when_the_candidate_is_accepted(
    client, sessions, store, model, review
):
    await store(
        *(
            MembershipStatistics(model_id=model.id, sample_id=name, out_mean=0.0, out_std=1.0)
            for name in ("t1", "t2")
        ),
        *(
            OutOfSamplePrediction(model_id=model.id, sample_id=name, probabilities=b"12")
            for name in ("t1", "t2")
        ),
    )
    [request] = await review(["t1"])

    await decide(client, request, "accept")

    async with sessions() as session:
        for table in (MembershipStatistics, OutOfSamplePrediction):
            assert list(await session.scalars(select(table.sample_id))) == ["t2"]


async def test_a_retry_tries_everything_that_shared_the_job_anew(
    client, sessions, review, champion
):
    [request, sharing] = await review(["t1"], ["t2"])

    body = (await decide(client, request, "retry")).json()

    assert body["status"] == "pending"
    assert body["targets"][0]["job_id"] is None
    assert [each["decision"] for each in body["decisions"]] == ["retry"]
    assert await status_of(client, sharing) == "pending"
    assert (await champion()).number == 1
    async with sessions() as session:
        candidate = (await session.scalars(select(ModelVersion).filter_by(number=2))).one()
        assert candidate.status is VersionStatus.SUPERSEDED
        assert list(await session.scalars(select(Tombstone))) == []


async def test_a_refusal_ends_one_request_and_tries_the_others_anew(
    client, sessions, review, champion
):
    [request, sharing] = await review(["t1"], ["t2"])

    body = (await decide(client, request, "refuse")).json()

    assert body["status"] == "refused"
    assert body["finished_at"] is not None
    assert body["decisions"][0]["ground"] == GROUND
    assert await status_of(client, sharing) == "pending"
    assert (await champion()).number == 1
    async with sessions() as session:
        assert list(await session.scalars(select(Tombstone))) == []


async def test_the_trail_tells_of_the_decision_but_not_its_ground(client, sessions, review):
    [request] = await review(["t1"])

    await decide(client, request, "accept")

    async with sessions() as session:
        events = (await session.scalars(select(AuditEvent).order_by(AuditEvent.id))).all()
    assert [event.event for event in events] == [
        "request.decided", "version.superseded", "version.promoted", "request.completed",
    ]  # fmt: skip
    assert {event.actor for event in events} == {"api"}
    told = str([event.data for event in events])
    assert "t1" not in told
    assert GROUND not in told


async def test_an_acceptance_stands_when_others_have_overtaken_the_candidate(
    client, sessions, queue, review, champion
):
    [first, sharing] = await review(["t1"], ["t3"])
    [second] = await review(["t2"], number=3)
    await decide(client, second, "accept")

    response = await decide(client, first, "accept")

    assert response.status_code == 200
    body = response.json()
    assert (body["status"], body["finished_at"]) == ("pending", None)
    assert [each["decision"] for each in body["decisions"]] == ["accept"]
    [target] = body["targets"]
    assert (target["job_id"], target["result"]) == (None, None)
    assert target["accepted_job_id"] == body["decisions"][0]["job_id"]
    assert await status_of(client, sharing) == "pending"
    assert (await champion()).number == 3
    async with sessions() as session:
        overtaken = (await session.scalars(select(ModelVersion).filter_by(number=2))).one()
        assert overtaken.status is VersionStatus.SUPERSEDED
        digests = {digest for digest in await session.scalars(select(Tombstone.digest))}
        events = select(AuditEvent).filter_by(event="request.decided", subject_id=first.id)
        told = (await session.scalars(events)).one()
    assert digests == {sample_digests.digest(factories.KEY, "t2")}
    assert told.data["overtaken"] is True
    assert queue.send_task.call_count == 2


async def test_a_candidate_that_keeps_what_was_forgotten_meanwhile_is_not_served(
    client, store, model, review, champion
):
    """Hold-out samples leave the champion's reservoir without making a new version."""
    [request] = await review(["t1"])
    job = factories.job(model_id=model.id, finished=True)
    later = factories.NOW.replace(year=factories.NOW.year + 1)
    await store(job, factories.tombstone(model, job, "h1", forgotten_at=later))

    body = (await decide(client, request, "accept")).json()

    assert body["status"] == "pending"
    assert (await champion()).number == 1


async def test_what_was_accepted_and_waits_can_be_taken_back(client, review):
    [first] = await review(["t1"])
    [second] = await review(["t2"], number=3)
    for request in (second, first):
        await decide(client, request, "accept")

    assert (await client.post(f"{URL}/{first.id}/cancel")).json()["status"] == "cancelled"


async def test_a_request_to_several_models_is_decided_for_all_that_wait(
    client, store, model, champion, review
):
    dataset = factories.dataset(id=model.dataset_id)
    other = factories.model(dataset, name="other")
    registration = factories.job(model_id=other.id, kind=JobKind.REGISTER_MODEL, finished=True)
    first = factories.version(other, registration)
    await store(other, registration, first)
    [request] = await review(["t1"])
    job, tried, candidate, *_ = waiting(other, first, ["t1"])
    review_too = factories.target(request, other, job_id=job.id, status=RequestStatus.NEEDS_REVIEW)
    await store(job, tried, candidate, review_too)

    body = (await decide(client, request, "accept")).json()

    assert body["status"] == "completed"
    assert len(body["decisions"]) == 2
    assert [(await champion(of)).number for of in (model, other)] == [2, 2]


@pytest.mark.parametrize("status", sorted(set(RequestStatus) - {RequestStatus.NEEDS_REVIEW}))
async def test_nothing_is_decided_where_no_decision_is_waited_for(
    client, store, model, problem, status
):
    request = factories.request(factories.dataset(id=model.dataset_id), status=status)
    await store(request, factories.target(request, model, status=status))

    problem(await decide(client, request, "refuse"), 409, "nothing-to-decide")
    assert await status_of(client, request) == status


async def test_an_unknown_request_is_404(client, problem):
    body = {"decision": "accept", "ground": GROUND}
    problem(await client.post(f"{URL}/{uuid4()}/decision", json=body), 404, "not-found")


@pytest.mark.parametrize(
    "body",
    [
        {"decision": "accept"},
        {"decision": "accept", "ground": ""},
        {"decision": "guess", "ground": "x"},
        {"decision": "accept", "ground": "a\0"},
        {"decision": "accept", "ground": "x", "by": "me"},
    ],
)
async def test_a_wrong_body_is_refused(client, review, body, problem):
    [request] = await review(["t1"])

    problem(await client.post(f"{URL}/{request.id}/decision", json=body), 422, "invalid-request")


@asynccontextmanager
async def committing(url, app):
    """Sessions of the app and the test whose transactions see what others have committed."""
    engine = async_engine(roles.as_role(url, roles.SUPERUSER))
    acting.as_their_roles(engine.sync_engine)
    sessions = async_sessions(engine)
    connect(app, sessions)
    yield sessions
    await engine.dispose()


async def store_reviews(sessions, *named):
    """A model, and for each list of ids a request that waits for a candidate of its own."""
    dataset = factories.dataset()
    model = factories.model(dataset)
    registration = factories.job(model_id=model.id, kind=JobKind.REGISTER_MODEL, finished=True)
    version = factories.version(model, registration)
    waits = [waiting(model, version, ids, number=2 + index) for index, ids in enumerate(named)]
    rows = [dataset, model, registration, version, *chain(*waits)]
    async with sessions.begin() as session:
        for _, same in groupby(rows, type):
            session.add_all(same)
            await session.flush()
    return [row for row in rows if isinstance(row, factories.DeletionRequest)]


async def test_of_many_decisions_at_once_one_is_taken(own_database_url, app):
    async with committing(own_database_url, app) as sessions, speaking_to(app) as client:
        [request] = await store_reviews(sessions, ["t1"])
        wishes = ["accept", "retry", "refuse", "accept", "retry", "refuse"]
        answers = await asyncio.gather(*(decide(client, request, wish) for wish in wishes))

    statuses = sorted(answer.status_code for answer in answers)
    assert statuses == [200] + [409] * 5


async def test_of_many_candidates_accepted_at_once_one_is_served(own_database_url, app):
    async with committing(own_database_url, app) as sessions, speaking_to(app) as client:
        requests = await store_reviews(sessions, ["t1"], ["t2"], ["t3"])
        async with sessions.begin() as session:  # none gets further until all have begun
            await session.execute(select(ModelVersion.id).with_for_update())
            tasks = [asyncio.create_task(decide(client, each, "accept")) for each in requests]
            await asyncio.sleep(0.5)
        answers = await asyncio.gather(*tasks)

    assert [answer.status_code for answer in answers] == [200] * 3
    statuses = sorted(answer.json()["status"] for answer in answers)
    assert statuses == ["completed", "pending", "pending"]
