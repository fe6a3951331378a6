"""A suppression is lifted: by whom and why is kept, and what was said before stays true."""

import pytest
from sqlalchemy import select

from domain import sample_digests
from domain.tables import AuditEvent, DeletionTarget, LiftedSample, SuppressionLift, Tombstone
from tests import factories
from tests.service.submitting import submit

WHY = {"reason": "consent given anew, ticket secret-4711", "authorised_by": "Ada secret-Lovelace"}
LIFT, LIFTS = "/v1/datasets/digits/suppression/lift", "/v1/datasets/digits/suppression/lifts"


@pytest.fixture
async def forgotten(store, model):
    """`t1`, and `gone`, which is not in the dataset any more, were forgotten by the one model."""
    job = factories.job(model_id=model.id, finished=True)
    await store(job)
    await store(*factories.tombstones(model, job, "t1", "gone"))


async def lift(client, *ids, **changed):
    return await client.post(LIFT, json={"sample_ids": [*ids], **WHY, **changed})


async def suppressed(client, *ids):
    body = {"sample_ids": [*ids]}
    return (await client.post("/v1/datasets/digits/check", json=body)).json()["suppressed"]


async def test_what_is_lifted_may_be_trained_on_again(client, sessions, model, forgotten):
    response = await lift(client, "t1", "t2", "gone", "nobody", "t1")

    assert response.status_code == 200, response.text
    body = response.json()
    assert (body["lift"]["samples"], body["already_lifted"]) == (2, [])
    assert body["not_suppressed"] == ["t2", "nobody"]
    assert await suppressed(client, "t1", "gone") == []
    listed = (await client.get(LIFTS)).json()["items"]
    assert listed == [body["lift"]]
    assert {name: listed[0][name] for name in WHY} == WHY
    assert (listed[0]["dataset"], listed[0]["lifted_by"]) == ("digits", "admin")
    async with sessions() as session:
        assert len((await session.scalars(select(Tombstone.digest))).all()) == 2  # still true


async def test_the_audit_trail_is_told_of_digests_only(client, sessions, model, forgotten):
    await lift(client, "t1")

    async with sessions() as session:
        event = (await session.scalars(select(AuditEvent))).one()
        key = factories.dataset().tombstone_key
    digest = sample_digests.digest
    assert (event.event, event.actor) == ("suppression.lifted", "api")
    assert event.subject_id == model.dataset_id
    assert event.data["samples"] == 1
    assert event.data["reason_hmac"] == digest(key, WHY["reason"]).hex()
    assert event.data["authorised_by_hmac"] == digest(key, WHY["authorised_by"]).hex()
    assert "secret" not in str(event.data)
    assert "t1" not in str(event.data)


async def test_lifting_twice_changes_nothing(client, sessions, model, forgotten):
    await lift(client, "t1")

    again = (await lift(client, "t1", reason="another")).json()

    assert again == {"lift": None, "already_lifted": ["t1"], "not_suppressed": []}
    async with sessions() as session:
        assert len((await session.scalars(select(SuppressionLift))).all()) == 1
        assert len((await session.scalars(select(AuditEvent))).all()) == 1


async def test_a_new_request_suppresses_again_at_once(client, sessions, store, model, forgotten):
    """The model that forgot it still has; one that was trained on it since has to."""
    await lift(client, "t1", "gone")
    later = factories.model(factories.dataset(id=model.dataset_id), name="later")
    await store(later)

    made = (await submit(client, model=None, dataset="digits", sample_ids=["t1"])).json()

    assert [(each["model"], each["status"]) for each in made["targets"]] == [
        ("cnn", "completed"), ("later", "pending"),
    ]  # fmt: skip
    assert await suppressed(client, "t1", "gone") == ["t1"]
    assert (await client.get(LIFTS)).json()["items"][0]["still_lifted"] == 1
    async with sessions() as session:
        assert len((await session.scalars(select(LiftedSample))).all()) == 1
        assert len((await session.scalars(select(DeletionTarget))).all()) == 2
    assert (await lift(client, "t1")).json()["lift"]["samples"] == 1


async def test_a_lift_is_of_one_dataset_alone(client, store, model, forgotten):
    other = factories.dataset(name="other", tombstone_key=sample_digests.new_key())
    await store(other)

    answer = await client.post(
        "/v1/datasets/other/suppression/lift", json={"sample_ids": ["t1"], **WHY}
    )

    assert answer.json()["not_suppressed"] == ["t1"]
    assert await suppressed(client, "t1") == ["t1"]


@pytest.mark.parametrize(
    "changed",
    [
        {"reason": ""}, {"authorised_by": ""}, {"reason": None}, {"authorised_by": "a\0"},
        {"sample_ids": []}, {"sample_ids": ["a\0"]}, {"sample_ids": [""]},
    ],
)  # fmt: skip
async def test_nothing_is_lifted_without_who_and_why(client, forgotten, problem, changed):
    problem(await lift(client, "t1", **changed), 422, "invalid-request")
    assert await suppressed(client, "t1") == ["t1"]


async def test_an_unknown_dataset_and_too_many_ids_are_refused(client, model, settings, problem):
    missing = "/v1/datasets/nobody/suppression"
    problem(
        await client.post(f"{missing}/lift", json={"sample_ids": ["a"], **WHY}), 404, "not-found"
    )
    problem(await client.get(f"{missing}/lifts"), 404, "not-found")
    ids = [f"t{n}" for n in range(settings.max_samples_per_request + 1)]
    problem(await lift(client, *ids), 413, "too-many-samples")
