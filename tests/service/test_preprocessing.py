from typing import Any

import pytest
from sqlalchemy import func, select, update

from domain.tables import Model
from tests import factories


@pytest.fixture
async def wanted(tmp_path, store) -> dict[str, Any]:
    """A model of a dataset that an older release registered."""
    dataset = factories.dataset()
    await store(dataset)
    return {
        "name": "cnn",
        "dataset": dataset.name,
        "weights": str(tmp_path / "cnn.safetensors"),
        "architecture": {"kind": "python", "factory": "nets.cnn:build"},
        "head": "head",
    }


@pytest.mark.parametrize(
    ("kind", "stored", "preprocessing", "message"),
    [
        ("tokens", "int64", {"mean": [0.0]}, "`mean` in `preprocessing` does not apply"),
        ("features", "float32", {"scale": 2}, "`scale` in `preprocessing` does not apply"),
        ("pixels", "uint8", {"mode": "L", "resize": [8, 8]}, "`resize` and `mode` in"),
        ("image", None, {"orientation": "exif"}, "3 images are in CMYK: set `preprocessing.cmyk`"),
        ("pixels", "uint16", {}, "`preprocessing.scale` must say what they are multiplied with"),
    ],
)
async def test_preprocessing_that_does_not_fit_the_inputs_is_refused(
    client, sessions, store, wanted, problem, kind, stored, preprocessing, message
):
    definition = {**factories.DEFINITION, "kind": kind}
    report = {"inputs": {"type": stored}, "images": {"cmyk": 3}, "samples": {}}
    await store(factories.dataset(name="other", definition=definition, report=report))

    response = await client.post(
        "/v1/models", json={**wanted, "dataset": "other", "preprocessing": preprocessing}
    )

    assert message in problem(response, 422, "preprocessing-refused")["detail"]
    async with sessions() as session:
        assert await session.scalar(select(func.count(Model.id))) == 0


async def test_what_an_older_release_stored_of_the_preprocessing_is_the_same_model(
    client, sessions, wanted
):
    first = await client.post("/v1/models", json={**wanted, "preprocessing": {"mode": "L"}})
    whole = {"resize": None, "mode": "L", "scale": None, "mean": [0.0], "std": [1.0]}
    async with sessions.begin() as session:
        await session.execute(update(Model).values(preprocessing=whole, declared=None))

    again = await client.post("/v1/models", json={**wanted, "preprocessing": {"mode": "L"}})

    assert (again.status_code, again.json()["id"]) == (202, first.json()["id"])
