"""Models of which nothing but the head is ever fitted anew, on a public backbone."""

from typing import Any

import pytest

from domain.states import JobKind
from tests import factories


@pytest.fixture
def on_a_backbone(wanted, tmp_path) -> dict[str, Any]:
    backbone = {
        "weights": str(tmp_path / "public.safetensors"), "source": "hub/net@1",
        "trained_on_dataset": False, "l2": 1e-4,
    }  # fmt: skip
    return wanted | {"recipe": "worker.recipes:head", "backbone": backbone}


async def test_a_head_on_a_backbone_needs_no_permission(client, on_a_backbone, store):
    response = await client.post("/v1/models", json=on_a_backbone)
    assert response.status_code == 202
    declared = {**on_a_backbone["backbone"], "sha256": None, "tensors": None, "refit": None}
    assert response.json()["backbone"] == declared
    assert (await client.post("/v1/models", json=on_a_backbone)).json() == response.json()

    found = {
        "source": "hub/net@1", "sha256": ["a" * 64], "tensors": 9, "trained_on_dataset": False,
        "refit": {
            "l2": 1e-4, "seconds": 2.0, "retain_accuracy": 0.9, "holdout_accuracy": 0.8,
            "test_accuracy": None, "largest_difference": 0.2, "same_answers": False,
        },
    }  # fmt: skip
    dataset = factories.dataset(name="texts")
    same = {"recipe": on_a_backbone["recipe"], "backbone": on_a_backbone["backbone"]}
    model = factories.model(dataset, name="ready", **same)
    job = factories.job(model_id=model.id, kind=JobKind.REGISTER_MODEL, finished=True)
    version = factories.version(model, job, figures={"backbone": found})
    await store(dataset, model, job, version)
    shown = (await client.get("/v1/models/ready")).json()["backbone"]
    assert (shown["sha256"], shown["tensors"]) == (["a" * 64], 9)
    assert shown["refit"] == {n: v for n, v in found["refit"].items() if n != "l2"}


@pytest.mark.parametrize(
    ("change", "advice"),
    [
        ({"backbone": None}, "go together"),
        ({"recipe": None}, "go together"),
        ({"recipe": "worker.networks.recipes:train"}, "go together"),
        ({"policy": {"reference_models": 4}}, "needs no reference models"),
        ({"backbone": {"trained_on_dataset": True}}, "a new head would not make it forget them"),
        ({"backbone": {"source": "Jane Doe's notes"}}, "pattern"),
        ({"backbone": {"l2": 0}}, "greater than 0"),
    ],
)
async def test_a_backbone_that_says_too_little_is_refused(client, on_a_backbone, change, advice):
    sent = on_a_backbone | change
    if change.get("backbone"):
        sent["backbone"] = on_a_backbone["backbone"] | change["backbone"]

    response = await client.post("/v1/models", json=sent)

    assert response.status_code == 422
    assert advice in response.text


async def test_a_backbone_must_be_safetensors_in_an_allowed_directory(
    client, on_a_backbone, tmp_path, problem
):
    of = on_a_backbone["backbone"]
    for weights, slug in (
        ("/etc/net.safetensors", "location-refused"),
        (str(tmp_path / "pytorch_model.bin"), "weights-refused"),
    ):
        sent = on_a_backbone | {"backbone": of | {"weights": weights}}
        problem(await client.post("/v1/models", json=sent), 422, slug)
