from collections.abc import Callable
from typing import Any

import httpx2
import pytest


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
