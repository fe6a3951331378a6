"""What a person can be shown about a deletion request, and what is destroyed to protect them."""

import base64
import json
from uuid import uuid4

import pytest
from sqlalchemy import String, cast, func, literal_column, select

from domain.states import FINAL_REQUESTS, Decision, RequestStatus, VersionStatus
from domain.tables import (
    AuditEvent,
    DeletionRequest,
    IdempotencyKey,
    ModelVersion,
    RequestKey,
    RequestSample,
    ReviewDecision,
)
from evidence import commitments
from evidence.commitments import Opening
from tests import factories
from tests.evidence.test_commitments import climb

URL = "/v1/deletion-requests"
OPEN = sorted(set(RequestStatus) - FINAL_REQUESTS)


@pytest.fixture
def submitted(client, model):
    async def submit(*ids, key="key"):
        body = {
            "model": "cnn", "sample_ids": [*ids], "subject_ref": "Ms. Miller", "reason": "asked",
        }  # fmt: skip
        response = await client.post(URL, json=body, headers={"Idempotency-Key": key})
        assert response.status_code == 202, response.text
        return response.json()

    return submit


async def shown(client, request, sample_id):
    return await client.post(f"{URL}/{request['id']}/inclusion", json={"sample_id": sample_id})


async def shred(client, request):
    return await client.post(f"{URL}/{request['id']}/shred")


async def test_a_named_id_is_shown_to_be_in_the_commitment_of_the_trail(
    client, sessions, submitted
):
    request = await submitted("t1", "t2", "h0")

    body = (await shown(client, request, "t2")).json()

    opening = Opening(
        bytes.fromhex(body["blind"]), body["index"], body["size"],
        [base64.b64decode(each) for each in body["proof"]],
    )  # fmt: skip
    async with sessions() as session:
        received = (await session.scalars(select(AuditEvent))).first()
    assert climb(opening, "t2").hex() == body["commitment"] == received.data["commitment"]
    assert body["size"] == 3
    assert "t1" not in json.dumps(body)


async def test_an_id_that_was_not_named_is_not_shown(client, submitted, problem):
    request = await submitted("t1", "t2")

    problem(await shown(client, request, "t3"), 404, "not-named")
    problem(await shown(client, {"id": uuid4()}, "t3"), 404, "not-found")


@pytest.mark.parametrize("body", [{}, {"sample_id": ""}, {"sample_id": "a\0"}, {"sample_id": 1}])
async def test_a_wrong_body_is_refused(client, submitted, problem, body):
    request = await submitted("t1")

    problem(
        await client.post(f"{URL}/{request['id']}/inclusion", json=body), 422, "invalid-request"
    )


async def test_an_id_is_shown_after_the_ids_are_gone(client, sessions, submitted):
    request = await submitted("t1", "t2")
    await client.post(f"{URL}/{request['id']}/cancel")

    async with sessions() as session:
        assert (await session.scalars(select(RequestSample))).all() == []
    assert (await shown(client, request, "t1")).status_code == 200


async def test_large_requests_are_committed_to_and_shown_too(
    client, store, model, submitted, settings
):
    dataset = factories.dataset(id=model.dataset_id)
    more = factories.samples(dataset, train=2500, holdout=0)[10:]
    await store(*more)
    names = [sample.sample_id for sample in more]

    request = await submitted(*names)

    body = (await shown(client, request, names[1234])).json()
    opening = Opening(
        bytes.fromhex(body["blind"]), body["index"], body["size"],
        [base64.b64decode(each) for each in body["proof"]],
    )  # fmt: skip
    assert climb(opening, names[1234]).hex() == request["commitment"]


async def test_a_request_from_before_commitments_shows_nothing(client, store, model, problem):
    request = factories.request(factories.dataset(id=model.dataset_id))
    await store(request, factories.target(request, model))

    problem(await shown(client, {"id": request.id}, "t1"), 410, "key-gone")


async def test_shredding_destroys_what_links_a_request_to_a_person(
    client, sessions, store, model, submitted, problem
):
    request = await submitted("t1")
    await client.post(f"{URL}/{request['id']}/cancel")
    job = factories.job(model_id=model.id, finished=True)
    decision = ReviewDecision(
        request_id=request["id"], job_id=job.id, decision=Decision.RETRY, ground="Ms. Miller",
        decided_by="admin",
    )  # fmt: skip
    await store(job, decision)

    response = await shred(client, request)

    assert response.status_code == 200
    body = response.json()
    assert (body["subject_ref"], body["reason"]) == (None, None)
    assert body["commitment"] == request["commitment"]
    assert body["shredded_at"] is not None
    assert [each["ground"] for each in body["decisions"]] == [None]
    async with sessions() as session:
        for table in (RequestKey, RequestSample, IdempotencyKey):
            assert (await session.scalars(select(table))).all() == [], table
        columns = cast(func.to_jsonb(literal_column("deletion_requests")), String)
        dump = await session.scalar(select(columns).select_from(DeletionRequest))
        events = (await session.scalars(select(AuditEvent.event).order_by(AuditEvent.id))).all()
    assert "Miller" not in dump
    assert events[-1] == "request.shredded"
    problem(await shown(client, request, "t1"), 410, "key-gone")


async def test_shredding_twice_is_told_once(client, sessions, submitted):
    request = await submitted("t1")
    await client.post(f"{URL}/{request['id']}/cancel")

    first, second = await shred(client, request), await shred(client, request)

    assert first.json() == second.json()
    async with sessions() as session:
        told = select(func.count()).select_from(AuditEvent).filter_by(event="request.shredded")
        assert await session.scalar(told) == 1


async def test_other_requests_keep_their_keys(client, sessions, submitted):
    request, other = await submitted("t1"), await submitted("t2", key="other")
    await client.post(f"{URL}/{request['id']}/cancel")

    await shred(client, request)

    assert (await shown(client, other, "t2")).status_code == 200
    assert (await client.get(f"{URL}/{other['id']}")).json()["reason"] == "asked"


@pytest.mark.parametrize("status", OPEN)
async def test_what_may_still_be_needed_is_not_shredded(client, store, model, problem, status):
    dataset = factories.dataset(id=model.dataset_id)
    request = factories.request(dataset, status=status, reason="asked")
    await store(request, factories.target(request, model, status=status))

    problem(await shred(client, {"id": request.id}), 409, "cannot-shred")
    assert (await client.get(f"{URL}/{request.id}")).json()["reason"] == "asked"


async def test_an_unknown_request_cannot_be_shredded(client, problem):
    problem(await shred(client, {"id": uuid4()}), 404, "not-found")


async def test_a_ground_enters_the_trail_as_a_digest_under_the_requests_own_key(
    client, sessions, store, model
):
    dataset = factories.dataset(id=model.dataset_id)
    job = factories.job(model_id=model.id, finished=True)
    async with sessions() as session:
        champion = (await session.scalars(select(ModelVersion.id))).one()
    review = RequestStatus.NEEDS_REVIEW
    requests = [factories.request(dataset, status=review) for _ in range(3)]
    key_of = {request.id: commitments.new_key() for request in requests[:2]}
    await store(
        job,
        factories.version(
            model, job, number=2, status=VersionStatus.CANDIDATE, parent_id=champion
        ),
        *requests,
        *(factories.target(each, model, job_id=job.id, status=review) for each in requests),
        *(RequestKey(request_id=each, key=key, entries=b"") for each, key in key_of.items()),
    )  # fmt: skip

    await client.post(
        f"{URL}/{requests[0].id}/decision", json={"decision": "accept", "ground": "lawful"}
    )

    async with sessions() as session:
        decided = select(AuditEvent).filter_by(event="request.decided")
        events = {event.subject_id: event for event in await session.scalars(decided)}
    assert {each: event.data["ground_hmac"] for each, event in events.items()} == {
        requests[2].id: None,  # from before requests had keys
        **{each: commitments.mac(key, "lawful").hex() for each, key in key_of.items()},
    }
