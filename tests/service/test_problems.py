"""Every failure is a problem document, nonsense never causes a 500, and no input is echoed."""

import random

import pytest

from domain.database import async_engine, async_sessions
from domain.errors import DomainError
from service import dependencies
from tests.conftest import connect

URL = "/v1/deletion-requests"
HEADERS = {"Content-Type": "application/json", "Idempotency-Key": "key"}


async def test_unknown_paths_and_methods(client, problem):
    problem(await client.get("/v1/unknown"), 404, "not-found")
    refusal = await client.delete("/v1/jobs")
    problem(refusal, 405, "method-not-allowed")
    assert refusal.headers["Allow"] == "GET"


@pytest.mark.parametrize(
    ("body", "status", "slug"),
    [
        (b"{not json", 422, "invalid-request"),
        (b"", 422, "invalid-request"),
        (b"null", 422, "invalid-request"),
        (b"[]", 422, "invalid-request"),
        (b"\x80", 400, "bad-request"),
        (b'{"model": "cnn", "sample_ids": ["\\ud800"]}', 422, "invalid-request"),
        (b'{"model": "cnn", "sample_ids": ' + b"9" * 5000 + b"}", 400, "bad-request"),
        (b"[" * 200_000, 400, "bad-request"),
        (b'{"a":' * 200_000, 400, "bad-request"),
    ],
    ids=lambda value: str(value)[:30],
)
async def test_a_body_that_is_not_json(client, body, status, slug, problem):
    problem(await client.post(URL, content=body, headers=HEADERS), status, slug)


async def test_a_body_without_content_type(client, problem):
    body = b'{"model": "cnn", "sample_ids": ["t1"]}'

    response = await client.post(URL, content=body, headers={"Idempotency-Key": "key"})

    problem(response, 422, "invalid-request")


async def test_says_where_and_what_but_not_what_was_given(client, problem):
    body = {
        "name": "x",
        "dataset": "SECRET name",
        "weights": "http://[SECRET",
        "architecture": {"kind": "SECRET"},
        "head": 3,
    }

    response = await client.post("/v1/models", json=body)

    errors = problem(response, 422, "invalid-request")["errors"]
    assert {tuple(error["loc"]) for error in errors} == {
        ("body", "dataset"),
        ("body", "weights"),
        ("body", "architecture"),
        ("body", "head"),
    }
    assert "SECRET" not in response.text


async def test_a_million_errors_are_not_a_million_lines(client, problem):
    response = await client.post(
        URL, json={"model": "cnn", "sample_ids": [1] * 100_000}, headers=HEADERS
    )
    problem(response, 422, "invalid-request")
    assert len(response.content) < 1000

    response = await client.post(URL, json={f"k{n}": n for n in range(10_000)}, headers=HEADERS)
    assert len(problem(response, 422, "invalid-request")["errors"]) == 100

    response = await client.post(URL, json={"k" * 10_000: 1}, headers=HEADERS)
    assert len(response.content) < 2000


ATOMS = [
    None, True, 0, -1, 1e308, 2**63, 10**100, "", "\0", "cnn", "t1", "x" * 10_000, "\U0001f600",
    [], {}, [[]], {"": ""}, ["\0"], "file:///", "file://[", "../..", "2026-13-01", "python",
]  # fmt: skip
BODIES = {
    "/v1/datasets": ["name", "uri", "kind", "columns", "splits", "input_shape", "bad_rows"],
    "/v1/models": [
        "name", "dataset", "weights", "architecture", "head", "preprocessing", "policy",
    ],
    "/v1/webhooks": ["url", "description", "events"],
    URL: ["model", "dataset", "sample_ids", "objective", "subject_ref", "received_at", "reason"],
}  # fmt: skip
INNER = [
    "kind", "factory", "arguments", "sample_id", "input", "label", "split", "train", "mean", "std",
    "resize", "scale",
]  # fmt: skip


async def test_nonsense_is_never_a_bug(client, model):
    dice = random.Random(0)

    def nonsense(depth: int) -> object:
        if depth and dice.random() < 0.3:
            return {dice.choice(INNER): nonsense(depth - 1) for _ in range(3)}
        if depth and dice.random() < 0.2:
            return [nonsense(depth - 1) for _ in range(3)]
        return dice.choice(ATOMS)

    for url, names in BODIES.items():
        for _ in range(150):
            body = {name: nonsense(3) for name in names if dice.random() < 0.7}
            response = await client.post(url, json=body, headers=HEADERS)
            assert response.status_code < 500, (url, body)


async def test_nonsense_in_paths_and_queries_is_never_a_bug(client, model):
    for value in ["%00", "%ff", "a" * 5000, "..", "%2e%2e%2f", "'", "1e9", "-1", "9" * 30]:
        for path in [
            f"/v1/datasets/{value}",
            f"/v1/models/{value}",
            f"/v1/models/cnn/versions/{value}",
            f"/v1/jobs/{value}",
            f"/v1/jobs/{value}/alignment",
            f"/v1/webhooks/{value}",
            f"/v1/webhooks/{value}/deliveries",
            f"/v1/webhooks?cursor={value}",
            f"/v1/jobs?status={value}&kind={value}&model={value}&limit={value}&cursor={value}",
            f"/v1/jobs?model={value}",
            f"{URL}?model={value}",
            f"/v1/audit/events?subject_id={value}",
            f"/v1/audit/events?cursor={value}",
        ]:
            assert (await client.get(path)).status_code < 500, path


async def test_a_bug_is_a_bare_500_that_is_logged(app, client, problem, capsys):
    def broken() -> None:
        raise RuntimeError("the cause")

    app.dependency_overrides[dependencies.sessions] = broken

    response = await client.get("/v1/jobs")

    problem(response, 500, "internal-error")
    assert "the cause" not in response.text
    logged = capsys.readouterr().out
    assert "request.crashed" in logged
    assert "Traceback" in logged
    assert "the cause" in logged


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg://nobody@127.0.0.1:1/nothing",
        "postgresql+psycopg://nobody@/nothing?host=/nowhere",
    ],
)
async def test_without_postgres_every_route_is_unavailable(app, client, url, problem):
    engine = async_engine(url)
    connect(app, async_sessions(engine))
    body = {"model": "cnn", "sample_ids": ["t1"]}

    responses = [await client.get(f"/v1/{name}") for name in ("datasets", "models", "jobs")]
    responses += [await client.get(path) for path in ("/readyz", "/metrics", "/v1/admin/metrics")]
    responses += [await client.post(URL, json=body, headers=HEADERS)]

    for response in responses:
        problem(response, 503, "unavailable")
        assert response.headers["Retry-After"] == "5"
    assert (await client.get("/livez")).status_code == 200
    await engine.dispose()


def subclasses(kind: type[DomainError]) -> list[type[DomainError]]:
    return [found for sub in kind.__subclasses__() for found in (sub, *subclasses(sub))]


def test_every_problem_has_its_own_type():
    slugs = [kind.slug for kind in subclasses(DomainError)]

    assert len(slugs) == len(set(slugs)) > 10


async def test_openapi_documents_failures_examples_and_the_key(client):
    document = (await client.get("/openapi.json")).json()

    operations = [
        (path, operation)
        for path, methods in document["paths"].items()
        for operation in methods.values()
    ]
    ids = [operation["operationId"] for _, operation in operations]
    assert len(ids) == len(set(ids))
    assert {"submit_deletion_request", "read_job", "register_model"} <= set(ids)
    for path, operation in operations:
        assert operation["summary"]
        assert operation["description"]
        if path.startswith("/v1/"):
            assert operation["security"] == [{"HTTPBearer": []}]
            assert {"401", "422", "503"} <= operation["responses"].keys()
    for status, response in document["paths"][URL]["post"]["responses"].items():
        if status != "202":
            assert list(response["content"]) == ["application/problem+json"]
    schemas = document["components"]["schemas"]
    for name in ("DatasetCreate", "ModelCreate", "DeletionRequestCreate", "WebhookCreate"):
        assert schemas[name]["examples"]
        assert schemas[name]["additionalProperties"] is False
    assert schemas["DeletionRequestCreate"]["properties"]["reason"]
    assert "HTTPValidationError" not in schemas


async def test_a_date_that_is_too_early_is_told_as_a_date(client, problem):
    body = {"model": "cnn", "sample_ids": ["t1"], "received_at": "1162-11-11T06:42:14Z"}

    errors = problem(await client.post(URL, json=body, headers=HEADERS), 422, "invalid-request")

    assert errors["errors"][0]["msg"] == "Input should be 2000-01-01 or later"
