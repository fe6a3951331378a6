from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import update

from domain.tables import Dataset
from tests import factories
from tests.service import grouped


@pytest.fixture
def problem() -> Callable[[httpx2.Response, int, str], dict[str, Any]]:
    """Assert that a response is the problem document of this kind, and give its members."""

    def check(response: httpx2.Response, status: int, slug: str) -> dict[str, Any]:
        assert response.status_code == status, response.text
        assert response.headers["Content-Type"] == "application/problem+json"
        body: dict[str, Any] = response.json()
        assert body["type"] == f"urn:lethe:problem:{slug}"
        assert body["status"] == status
        assert body["title"]
        assert body["detail"]
        assert body["instance"] == response.request.url.path
        return body

    return check


@pytest.fixture
async def wanted(tmp_path: Path, store: Any) -> dict[str, Any]:
    """What registers a model, with nothing but what it must say."""
    await store(factories.dataset())
    return {
        "name": "cnn",
        "dataset": "digits",
        "weights": str(tmp_path / "cnn.safetensors"),
        "architecture": {"kind": "python", "factory": "nets.cnn:build", "arguments": {"width": 8}},
        "head": "head",
    }


@pytest.fixture
async def groups(sessions: Any, model: factories.Model) -> factories.Model:
    """The model, whose samples' groups are in the index; see `grouped`."""
    async with sessions.begin() as session:
        chosen = update(Dataset).where(Dataset.id == model.dataset_id)
        await session.execute(chosen.values(definition=grouped.GROUPED))
        for sample_id, subject in grouped.OF.items():
            await grouped.move(session, model, sample_id, subject)
    return model
