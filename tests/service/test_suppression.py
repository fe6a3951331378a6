"""Samples that were forgotten do not come back unnoticed."""

import pytest
from sqlalchemy import select

from domain import sample_digests
from domain.tables import AuditEvent
from tests import factories


@pytest.fixture
def forgotten(store, model):
    """`t1` and `h0` by one model of the dataset, `t2` and `t1` by another; `t3` in another dataset,
    whose ids are the same."""

    async def put():
        dataset = factories.dataset(id=model.dataset_id)
        other = factories.model(dataset, name="second")
        elsewhere = factories.dataset(name="elsewhere", tombstone_key=sample_digests.new_key())
        third = factories.model(elsewhere, name="third")
        job = factories.job(model_id=model.id, finished=True)
        await store(elsewhere, other, third, job)
        await store(
            *factories.tombstones(model, job, "t1", "h0", "no longer indexed"),
            *factories.tombstones(other, job, "t2", "t1"),
            factories.tombstone(third, job, "t3", key=elsewhere.tombstone_key),
        )

    return put


async def check(client, *ids, dataset="digits"):
    return await client.post(f"/v1/datasets/{dataset}/check", json={"sample_ids": [*ids]})


async def test_what_any_model_of_the_dataset_has_forgotten_is_suppressed(client, forgotten):
    await forgotten()

    response = await check(client, "t3", "t2", "no longer indexed", "t1", "t0", "h0", "t2", "?")

    assert response.status_code == 200
    assert response.json() == {
        "checked": 7,
        "suppressed": ["t2", "no longer indexed", "t1", "h0"],
    }
    assert (await check(client, "t3", "t1", dataset="elsewhere")).json()["suppressed"] == ["t3"]


async def test_nothing_is_suppressed_where_nothing_was_forgotten(client, model):
    assert (await check(client, "t1")).json() == {"checked": 1, "suppressed": []}


async def test_an_unknown_dataset_is_404(client, problem):
    problem(await check(client, "t1", dataset="nobody"), 404, "not-found")


async def test_too_many_ids_are_refused(client, model, settings, problem):
    ids = [f"t{n}" for n in range(settings.max_samples_per_request + 1)]

    problem(await check(client, *ids), 413, "too-many-samples")


@pytest.mark.parametrize("ids", [[], [""], ["a\0"], [1], ["x" * 513]])
async def test_wrong_ids_are_refused(client, model, problem, ids):
    problem(await check(client, *ids), 422, "invalid-request")


async def test_a_model_that_is_registered_late_is_warned_of(
    client, sessions, forgotten, settings, model
):
    await forgotten()
    body = {
        "name": "late",
        "dataset": "digits",
        "weights": str(settings.data_roots[0] / "late.safetensors"),
        "architecture": {"kind": "python", "factory": "nets.cnn:build"},
        "head": "head",
    }

    late = (await client.post("/v1/models", json=body)).json()

    assert late["suppressed_samples"] == 4
    assert "4 samples" in late["warning"]
    assert "/v1/datasets/digits/check" in late["warning"]
    assert (await client.post("/v1/models", json=body)).json()["warning"] == late["warning"]
    first = (await client.get("/v1/models/cnn")).json()
    assert (first["suppressed_samples"], first["warning"]) == (0, None)
    async with sessions() as session:
        registered = select(AuditEvent).filter_by(event="model.registered")
        event = (await session.scalars(registered)).one()
    assert event.data["suppressed_samples"] == 4
