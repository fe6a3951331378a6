"""Every answer tells a browser to do little with it, and none repeats the request's `Host`."""

import re
from base64 import b64encode
from hashlib import sha256

import pytest

from service import dependencies
from service.app import create_app
from tests.conftest import speaking_to


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/jobs", 200),
        ("GET", "/v1/unknown", 404),
        ("PUT", "/v1/jobs", 405),
        ("GET", "/v1/jobs?limit=x", 422),
        ("GET", "/livez", 200),
        ("GET", "/metrics", 200),
        ("GET", "/docs", 200),
        ("GET", "/openapi.json", 200),
        ("GET", "/docs-assets/swagger-ui.css", 200),
        ("GET", "/docs-assets/none", 404),
    ],
)
async def test_every_answer_has_them(client, method, path, status):
    response = await client.request(method, path)

    assert response.status_code == status
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Referrer-Policy"] == "no-referrer"
    assert "frame-ancestors 'none'" in response.headers["Content-Security-Policy"]
    cached = "no-cache" if path.endswith(".css") else "no-store"
    assert response.headers["Cache-Control"] == cached
    assert "Strict-Transport-Security" not in response.headers


async def test_a_refusal_and_a_crash_have_them_too(app, client):
    def broken() -> None:
        raise RuntimeError

    app.dependency_overrides[dependencies.sessions] = broken
    crash = await client.get("/v1/jobs")
    refusal = await client.get("/v1/jobs", headers={"Authorization": ""})

    assert (crash.status_code, refusal.status_code) == (500, 401)
    for response in (crash, refusal):
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Cache-Control"] == "no-store"


async def test_behind_tls_the_browser_is_told_to_keep_to_it(client):
    response = await client.get("https://lethe/livez")
    assert response.headers["Strict-Transport-Security"] == "max-age=31536000"


async def test_the_documentation_runs_its_own_script_and_no_other(client):
    response = await client.get("/docs")

    (script,) = re.findall(r"<script>(.*?)</script>", response.text, re.DOTALL)
    digest = b64encode(sha256(script.encode()).digest()).decode()
    policy = response.headers["Content-Security-Policy"]
    assert f"script-src 'self' 'sha256-{digest}';" in policy


@pytest.mark.parametrize(
    "path", ["/v1/jobs/", "/v1/deletion-requests/", "/docs/", "/docs-assets", "/livez/", "//livez"]
)
async def test_nothing_is_redirected(client, path):
    response = await client.get(f"http://lethe{path}", headers={"Host": "evil.example"})

    assert response.status_code == 404
    assert "Location" not in response.headers
    assert "evil" not in response.text


async def test_a_strange_host_changes_nothing(client):
    response = await client.get("/v1/unknown", headers={"Host": "evil.example/x?"})

    assert response.json()["instance"] == "/v1/unknown"


async def test_all_methods_of_a_path_are_allowed(client):
    for path, methods in {
        "/v1/webhooks": "GET, POST",
        "/v1/webhooks/019ad1d2-0000-7000-8000-000000000000": "DELETE, GET, PATCH",
        "/v1/models/cnn/versions/1": "GET",
    }.items():
        response = await client.put(path)
        assert (response.status_code, response.headers["Allow"]) == (405, methods)


async def test_an_encoded_body_is_refused(client, problem):
    for encoding in ("gzip", "br", "identity, gzip"):
        headers = {"Content-Encoding": encoding, "Idempotency-Key": "k"}
        response = await client.post("/v1/deletion-requests", content=b"x", headers=headers)
        problem(response, 415, "body-encoded")
        assert response.headers["Accept-Encoding"] == "identity"


async def test_the_documentation_can_be_switched_off(settings, problem):
    app = create_app(settings.model_copy(update={"docs": False}))
    async with speaking_to(app) as client:
        for path in ("/docs", "/openapi.json", "/docs-assets/swagger-ui.css"):
            problem(await client.get(path, headers={"Authorization": ""}), 401, "unauthorized")
            problem(await client.get(path), 404, "not-found")
