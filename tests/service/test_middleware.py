"""No request passes without the key, and none that is too large is read to the end."""

import asyncio
import re
from collections.abc import AsyncIterator

import httpx2
import pytest
from fastapi.routing import iter_route_contexts

from service import attempts, documentation, memory, middleware
from tests.conftest import KEY

OPEN = middleware.OPEN | middleware.DOCUMENTATION | {middleware.METRICS, documentation.ASSETS}


def test_every_route_needs_the_key_but_the_open_ones(app):
    paths = {route.path for route in iter_route_contexts(app.routes)}

    assert {path for path in paths if not path.startswith("/v1/")} == OPEN
    assert len(paths) > 15


async def test_every_route_refuses_those_without_the_key(app, client, problem, monkeypatch):
    monkeypatch.setattr(attempts, "ALLOWED", 10_000)
    headers = {"Authorization": ""}
    for route in iter_route_contexts(app.routes):
        if route.path in OPEN:
            continue
        path = re.sub(r"{\w+}", "1", route.path)
        for method in route.methods:
            response = await client.request(method, path, headers=headers, content=b"{not json")
            problem(response, 401, "unauthorized")
            assert response.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics", "/docs", "/openapi.json"])
async def test_open_routes_answer_everyone(client, path):
    assert (await client.get(path, headers={"Authorization": ""})).status_code == 200


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer ", f"Basic {KEY}", KEY, f"Bearer {KEY}x", "Bearer \xff"]
)
@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/unknown", "/unknown", "/livez/", "//livez"])
async def test_a_wrong_key_opens_nothing(client, path, header, problem):
    headers = {"Authorization": header.encode("latin-1")}

    response = await client.get(f"http://lethe{path}", headers=headers)

    problem(response, 401, "unauthorized")


async def test_the_scheme_is_case_insensitive(client):
    headers = {"Authorization": f"bearer {KEY}"}

    assert (await client.get("/v1/jobs", headers=headers)).status_code == 200


async def test_a_body_that_says_it_is_too_large_is_not_read(app, client, problem):
    read = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal read
        while True:
            read += 1
            yield b" " * 2**20

    length = {"Content-Length": str(16 * 2**20 + 1), "Content-Type": "application/json"}
    response = await client.post("/v1/deletion-requests", content=body(), headers=length)

    problem(response, 413, "body-too-large")
    assert read == 0


async def test_a_body_of_unknown_length_is_read_up_to_the_limit(client, problem):
    read = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal read
        for _ in range(100):
            read += 1
            yield b" " * 2**20

    headers = {"Content-Type": "application/json", "Idempotency-Key": "key"}
    response = await client.post("/v1/deletion-requests", content=body(), headers=headers)

    problem(response, 413, "body-too-large")
    assert read == 17


async def test_a_body_of_just_the_limit_is_read(client, problem):
    headers = {"Content-Type": "application/json", "Idempotency-Key": "key"}
    body = b"{" + b" " * (16 * 2**20 - 2) + b"}"

    response = await client.post("/v1/deletion-requests", content=body, headers=headers)

    problem(response, 422, "invalid-request")


async def test_docs_load_nothing_from_elsewhere(client):
    page = (await client.get("/docs")).text

    assets = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert assets
    assert all(asset.startswith(documentation.ASSETS) for asset in assets)
    for asset in assets:
        response: httpx2.Response = await client.get(asset, headers={"Authorization": ""})
        assert response.status_code == 200


async def test_memory_is_given_back_after_a_large_body_only(client, monkeypatch):
    trimmed = []
    monkeypatch.setattr(memory, "_malloc_trim", trimmed.append)
    for size in (2**10, 2**21):
        body = b"{" + b" " * size + b"}"
        await client.post("/v1/deletion-requests", content=body)

    assert trimmed == [0]


async def test_many_without_a_key_do_not_hold_up_those_with_one(settings):
    served = []

    async def app(scope, receive, send):
        served.append(scope["path"])

    async def ask(path: str, key: str) -> None:
        headers = [(b"authorization", f"Bearer {key}".encode())]
        await gate({"type": "http", "method": "GET", "path": path, "headers": headers}, None, None)

    gate = middleware.Gate(app, settings, attempts.FailedAttempts())
    strangers = [ask("/livez", "") for _ in range(100)]

    await asyncio.gather(*strangers, ask("/v1/jobs", KEY))

    assert len(served) == 101
    assert served.index("/v1/jobs") < 5
