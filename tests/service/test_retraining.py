"""The `mode` of a policy, and what a retraining takes."""

from sqlalchemy import update

from domain.states import JobKind
from domain.tables import Model
from tests import factories


async def test_a_model_of_an_older_release_has_the_defaults_of_options_that_came_later(
    client, sessions, wanted
):
    first = await client.post("/v1/models", json=wanted)
    async with sessions.begin() as session:
        await session.execute(update(Model).values(policy={"max_forget_share": 0.5}))

    again = await client.post("/v1/models", json=wanted)

    assert (again.status_code, again.json()) == (202, first.json())


async def test_what_always_retrains_needs_a_recipe(client, wanted):
    exact = wanted | {"policy": {"mode": "exact"}}

    refused = await client.post("/v1/models", json=exact)

    assert refused.status_code == 422
    assert "so it needs a `recipe`" in refused.text
    recipe = {"recipe": "worker.networks.recipes:train"}
    accepted = await client.post("/v1/models", json=exact | recipe)
    assert accepted.json()["policy"]["mode"] == "exact"


async def test_shows_what_a_retraining_takes_on_each_device(client, store):
    dataset = factories.dataset()
    measured = {"seconds": 1080.0, "samples": 50_000, "passes": None, "assumed": False}
    steps = measured | {"measured": "steps", "passes": 18, "assumed": True}
    timings = {
        "cpu": {"retraining": steps, "job": {"constant": 60.0}},
        "NVIDIA H200": {"retraining": measured | {"measured": "retraining"}},
    }
    model = factories.model(dataset, timings=timings)
    job = factories.job(model_id=model.id, kind=JobKind.REGISTER_MODEL, finished=True)
    await store(dataset, model, job)

    shown = (await client.get("/v1/models/cnn")).json()["retraining"]

    assert [each["device"] for each in shown] == ["NVIDIA H200", "cpu"]
    assert [each["measured"] for each in shown] == ["retraining", "steps"]
    assert shown[1] == {
        "device": "cpu", "retraining_seconds": 1080.0, "measured": "steps", "samples": 50_000,
        "passes": 18.0, "assumed": True,
    }  # fmt: skip
