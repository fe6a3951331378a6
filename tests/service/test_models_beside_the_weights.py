"""Registering weights, and what lies beside them."""

from typing import Any

import pytest
from sqlalchemy import update

from domain.states import RegistrationStatus
from domain.tables import Model
from tests import factories


@pytest.fixture
async def dataset(store) -> Any:
    row = factories.dataset()
    await store(row)
    return row


@pytest.fixture
def wanted(tmp_path, dataset) -> dict[str, Any]:
    return {
        "name": "cnn",
        "dataset": dataset.name,
        "weights": str(tmp_path / "cnn.safetensors"),
        "architecture": {"kind": "python", "factory": "nets.cnn:build", "arguments": {"width": 8}},
        "head": "head",
    }


async def test_may_be_a_transformers_directory(client, wanted, tmp_path):
    body = wanted | {"weights": str(tmp_path / "vit"), "architecture": {"kind": "transformers"}}

    response = await client.post("/v1/models", json=body)

    assert response.status_code == 202
    assert response.json()["architecture"] == {"kind": "transformers"}


async def test_the_config_that_registration_keeps_is_not_part_of_the_definition(
    client, sessions, wanted, tmp_path
):
    body = wanted | {"weights": str(tmp_path / "vit"), "architecture": {"kind": "transformers"}}
    await client.post("/v1/models", json=body)
    kept = {"kind": "transformers", "config": {"model_type": "vit"}}
    async with sessions.begin() as session:
        await session.execute(
            update(Model).values(status=RegistrationStatus.READY, architecture=kept)
        )

    again = await client.post("/v1/models", json=body)

    assert again.status_code == 202
    assert again.json()["status"] == "ready"
    assert again.json()["architecture"] == {"kind": "transformers"}


@pytest.mark.parametrize(
    ("kind", "weights"),
    [
        ("python", "cnn.pt"),
        ("python", "cnn"),
        ("python", "w.index.json"),
        ("transformers", "pytorch_model.bin"),
        ("transformers", "old.CKPT"),
    ],
)
async def test_pickled_weights_are_refused(client, wanted, tmp_path, kind, weights, problem):
    body = wanted | {"weights": str(tmp_path / weights)}
    if kind == "transformers":
        body["architecture"] = {"kind": "transformers"}

    refusal = problem(await client.post("/v1/models", json=body), 422, "weights-refused")

    assert "Only safetensors weights are accepted" in refusal["detail"]
    assert "save_model" in refusal["detail"]


@pytest.mark.parametrize(
    ("kind", "weights", "advice"),
    [
        ("python", "model.gguf", "exports for inference"),
        ("transformers", "model.onnx", "exports for inference"),
        ("transformers", "tf_model.h5", "from_tf=True"),
    ],
)
async def test_other_formats_are_refused_with_the_advice_that_fits(
    client, wanted, tmp_path, kind, weights, advice, problem
):
    body = wanted | {"weights": str(tmp_path / weights)}
    if kind == "transformers":
        body["architecture"] = {"kind": "transformers"}

    refusal = problem(await client.post("/v1/models", json=body), 422, "weights-refused")

    assert advice in refusal["detail"]


async def test_the_index_of_shards_is_accepted(client, wanted, tmp_path):
    body = wanted | {"weights": str(tmp_path / "model.safetensors.index.json")}

    assert (await client.post("/v1/models", json=body)).status_code == 202


async def test_what_was_found_beside_the_weights_is_told_and_is_no_other_definition(
    client, sessions, wanted
):
    body = wanted | {"classes": ["b", "a"], "map_classes": True, "preprocessing": {"mode": "L"}}
    first = (await client.post("/v1/models", json=body)).json()
    assert (first["classes"], first["classes_source"]) == (["b", "a"], "declared")
    found = {
        "preprocessing_source": "preprocessor_config.json",
        "classes": ["b", "a"],
        "classes_source": "declared",
    }
    used = {"mode": "L", "mean": [0.25], "std": [0.5], "labels": [1, 0]}
    async with sessions.begin() as session:
        await session.execute(update(Model).values(found=found, preprocessing=used))
        await session.execute(update(Model).values(status=RegistrationStatus.READY))

    again = await client.post("/v1/models", json=body)

    assert again.status_code == 202
    known = again.json()
    assert known["preprocessing"]["mean"] == [0.25]
    assert "labels" not in known["preprocessing"]
    assert {name: known[name] for name in found} == found
    for change in ({"map_classes": False}, {"classes": ["a", "b"]}, {"preprocessing": {}}):
        assert (await client.post("/v1/models", json=body | change)).status_code == 409


@pytest.mark.parametrize("classes", [[], ["a", "a"], ["a", " "], ["a", "\0"], "ab", [1]])
async def test_names_that_tell_nothing_apart_are_refused(client, wanted, classes, problem):
    response = await client.post("/v1/models", json=wanted | {"classes": classes})

    problem(response, 422, "invalid-request")


async def test_a_model_of_an_earlier_release_is_the_same_definition(client, sessions, wanted):
    await client.post("/v1/models", json=wanted)
    async with sessions.begin() as session:
        await session.execute(update(Model).values(declared=None))

    assert (await client.post("/v1/models", json=wanted)).status_code == 202


async def test_weights_outside_the_roots_are_refused(client, wanted, problem):
    response = await client.post("/v1/models", json=wanted | {"weights": "/x.safetensors"})

    problem(response, 422, "location-refused")
