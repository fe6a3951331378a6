"""Failures to authenticate are counted, logged and throttled; a valid key still works."""

import json
from typing import Any

import httpx2
import pytest
from pydantic import SecretStr

from service import attempts
from service.app import create_app
from service.attempts import FailedAttempts, shown
from tests.conftest import KEY

WRONG = {"Authorization": "Bearer somebody-elses-secret"}


def logged(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines() if "{" in line]
    return [line for line in lines if line["event"].startswith("authentication.")]


def coming_from(app: Any, address: str) -> httpx2.AsyncClient:
    transport = httpx2.ASGITransport(app, client=(address, 1))
    return httpx2.AsyncClient(transport=transport, base_url="http://lethe")


async def test_a_failure_is_logged_without_the_key(app, capsys):
    async with coming_from(app, "192.0.2.77") as client:
        await client.get("/v1/jobs", headers=WRONG)
        await client.get("/v1/jobs?secret=1")

    assert [(line["event"], line["reason"], line["client"]) for line in logged(capsys)] == [
        ("authentication.failed", "wrong", "192.0.2.0/24"),
        ("authentication.failed", "missing", "192.0.2.0/24"),
    ]
    assert "secret" not in capsys.readouterr().out


async def test_failures_are_throttled_and_a_valid_key_is_not(app, problem, capsys):
    async with coming_from(app, "198.51.100.7") as client:
        for _ in range(attempts.ALLOWED):
            problem(await client.get("/v1/jobs", headers=WRONG), 401, "unauthorized")
        refused = [await client.get("/v1/jobs", headers=WRONG) for _ in range(5)]
        for response in refused:
            problem(response, 429, "too-many-attempts")
            assert 0 < int(response.headers["Retry-After"]) <= 61
            assert response.headers["WWW-Authenticate"] == "Bearer"
        right = {"Authorization": f"Bearer {KEY}"}
        assert (await client.get("/v1/jobs", headers=right)).status_code == 200
        assert (await client.get("/livez")).status_code == 200
        told = (await client.get("/metrics")).text
    async with coming_from(app, "198.51.100.8") as other:
        problem(await other.get("/v1/jobs", headers=WRONG), 401, "unauthorized")

    lines = logged(capsys)
    assert len(lines) == attempts.ALLOWED + 2  # one says that it is throttled, one is the other's
    assert 'lethe_authentication_failures_total{reason="wrong"}' in told
    assert "lethe_authentication_throttled_total" in told
    assert "198.51.100" not in told


def test_memory_is_bounded_and_a_network_is_one_client(monkeypatch):
    monkeypatch.setattr(attempts, "REMEMBERED", 10)
    failed = FailedAttempts()
    for number in range(1000):
        failed.failed(f"10.0.{number // 256}.{number % 256}", "wrong")
    assert len(failed._windows) == 10
    for number in range(1, attempts.ALLOWED + 2):
        count, left_s = failed.failed(f"2001:db8::{number:x}", "missing")
        assert (count, left_s > 0) == (number, True)
    assert failed.failed("::ffff:192.0.2.1", "wrong")[0] == 1
    assert failed.failed("::ffff:192.0.2.2", "wrong")[0] == 1
    assert failed.throttled == 1


def test_a_window_ends(monkeypatch):
    failed = FailedAttempts()
    monkeypatch.setattr(attempts, "WINDOW_S", 0.0)
    assert [failed.failed("192.0.2.1", "wrong")[0] for _ in range(3)] == [1, 1, 1]


@pytest.mark.parametrize(
    ("client", "mode", "told"),
    [
        ("192.0.2.77", "address", "192.0.2.77"),
        ("192.0.2.77", "network", "192.0.2.0/24"),
        ("::ffff:192.0.2.77", "network", "192.0.2.0/24"),
        ("2001:db8:1:2::3", "network", "2001:db8:1::/48"),
        ("192.0.2.77", "none", None),
        ("unknown", "network", "unknown"),
    ],
)
def test_the_log_shows_what_the_setting_allows(client, mode, told):
    assert shown(client, mode) == told


async def test_metrics_may_have_a_key_of_their_own(settings, sessions, problem):
    from tests.conftest import connect

    app = create_app(settings.model_copy(update={"metrics_key": SecretStr("scrape" * 4)}))
    connect(app, sessions)
    async with coming_from(app, "192.0.2.1") as client:
        problem(await client.get("/metrics"), 401, "unauthorized")
        problem(await client.get("/metrics", headers=WRONG), 401, "unauthorized")
        for key in ("scrape" * 4, KEY):
            told = await client.get("/metrics", headers={"Authorization": f"Bearer {key}"})
            assert told.status_code == 200
        scraping = {"Authorization": f"Bearer {'scrape' * 4}"}
        problem(await client.get("/v1/jobs", headers=scraping), 401, "unauthorized")
