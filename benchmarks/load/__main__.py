"""How much load the API carries: `make bench-load`. Prints tables and writes `benchmarks/results/`.

The load comes from another process, `wrk`; the API is a real uvicorn in front of a real Postgres
with 1,000,000 samples. Another uvicorn runs `bare`, the limit, in turns with it.
"""

import argparse
import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import psycopg
from sqlalchemy import make_url

from benchmarks.load import backlog, memory, throughput
from benchmarks.load.throughput import Side
from benchmarks.requests import fill, named
from devstack import local, roles

RESULTS = Path(__file__).parent.parent / "results"
KEY = "a-key-for-benchmarks"
KNOWN = 500
"""Number of requests that can be read."""


def main() -> int:
    arguments = argparse.ArgumentParser(prog="python -m benchmarks.load", description=__doc__)
    arguments.add_argument(
        "--rounds", type=int, default=7, help=("rounds per case, with both sides in each")
    )
    arguments.add_argument("--seconds", type=float, default=4, help="seconds per side and round")
    wanted = arguments.parse_args()
    if shutil.which("wrk") is None:
        print(
            "wrk, which makes the load, is not installed. Run apt-get install wrk, or brew install "
            "wrk."
        )
        return 1
    with tempfile.TemporaryDirectory() as folder, local.servers(Path(folder)) as servers:
        environment = {
            **os.environ,
            "LETHE_DATABASE_URL": servers.database_url,
            "LETHE_BROKER_URL": servers.broker_url,
            "LETHE_STORE": str(Path(folder) / "store"),
            "LETHE_ADMIN_KEY": KEY,
            "LETHE_LOG_FORMAT": "json",
        }
        home = local.Stack(Path(folder), servers.owner_url, environment, local.free_port())
        home.migrate()
        fill(servers.owner_url)
        results = {
            "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "cores": os.cpu_count(),
            "load_average_before": os.getloadavg()[0],
            **_serve(home, rounds=wanted.rounds, seconds=wanted.seconds),
        }
        _save(results)  # the backlog takes some minutes more
        results["backlog"], plans = backlog.measure(_new_database(servers, environment))
    _save(results)
    _report(results)
    (RESULTS / "load-plans.md").write_text(plans)
    return 0


def _save(results: dict[str, Any]) -> None:
    (RESULTS / "load.json").write_text(json.dumps(results, indent=2) + "\n")


def _serve(home: local.Stack, *, rounds: int, seconds: float) -> dict[str, Any]:
    """Measure over HTTP: memory, one key sent fifty times at once, and throughput."""
    home.start("api")
    try:
        home.wait_until_ready()
        known = home.state / "known"
        known.write_text("")
        api = Side(home.url, "/v1/deletion-requests", KEY, known)
        for name in ("worker", "beat"):
            home.start(name)
        try:
            grown = memory.measure(home, api)
        finally:
            for name in ("worker", "beat"):
                home.stop(name)
        same_key = asyncio.run(_fifty_with_one_key(home))
        known.write_text("".join(f"{_submit(home, number)}\n" for number in range(KNOWN)))
        with _bare(home) as url:
            bare = Side(url, "/requests", "none", known)
            cases = list(throughput.measure(api, bare, rounds=rounds, seconds=seconds))
    finally:
        home.stop("api")
    return {"throughput": cases, "fifty_posts_with_one_key": same_key, "memory": grown}


@contextmanager
def _bare(home: local.Stack) -> Iterator[str]:
    """Run the limit the way the API is run; yield its URL."""
    port = local.free_port()
    command = [sys.executable, "-m", "uvicorn", "--factory", "benchmarks.load.bare:app",
               "--host=127.0.0.1", f"--port={port}", "--no-access-log"]  # fmt: skip
    owner = home.environment | {"LETHE_DATABASE_URL": home.owner_url}  # it creates a table
    with home.log("bare").open("ab") as log:
        process = subprocess.Popen(command, env=owner, stdout=log, stderr=log)
    try:
        url = f"http://127.0.0.1:{port}"
        transport = httpx2.HTTPTransport(retries=8)  # waits longer each time, a minute in total
        with httpx2.Client(transport=transport) as client:
            client.get(f"{url}/openapi.json").raise_for_status()
        yield url
    finally:
        process.terminate()
        process.wait()


def _submit(home: local.Stack, number: int) -> str:
    body = {"model": "net", "sample_ids": [named(10 * number + each) for each in range(10)]}
    response = httpx2.post(
        f"{home.url}/v1/deletion-requests",
        json=body,
        headers=home.headers | {"Idempotency-Key": str(uuid4())},
    )
    request_id: str = response.raise_for_status().json()["id"]
    return request_id


async def _fifty_with_one_key(home: local.Stack) -> dict[str, int]:
    """Send fifty identical submissions at once, each over its own connection; return results."""
    key, limits = str(uuid4()), httpx2.Limits(max_keepalive_connections=0)
    headers = home.headers | {"Idempotency-Key": key}
    body = {"model": "net", "sample_ids": [named(1)]}
    async with httpx2.AsyncClient(headers=headers, limits=limits, timeout=60) as client:
        url = f"{home.url}/v1/deletion-requests"
        answers = await asyncio.gather(*(client.post(url, json=body) for _ in range(50)))
    accepted = [answer for answer in answers if answer.status_code == 202]
    with psycopg.connect(home.environment["LETHE_DATABASE_URL"]) as connection:
        rows = connection.execute("SELECT count(*) FROM idempotency_keys WHERE key = %s", [key])
        [stored] = rows.fetchone() or [0]
    return {
        "accepted": len(accepted),
        "told_to_wait": sum(answer.status_code == 409 for answer in answers),
        "different_answers": len({answer.content for answer in accepted}),
        "rows": stored,
    }


def _new_database(servers: local.Servers, environment: dict[str, str]) -> str:
    """The URL of a new database with the newest schema."""
    with psycopg.connect(servers.superuser_url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE backlog OWNER {roles.OWNER}")
        connection.execute("REVOKE TEMPORARY ON DATABASE backlog FROM PUBLIC")
    url = make_url(servers.owner_url).set(database="backlog")
    plain = url.render_as_string(hide_password=False)
    own = environment | {"LETHE_DATABASE_URL": plain}
    command = [sys.executable, "-m", "alembic", "upgrade", "head"]
    subprocess.run(command, cwd=local.REPOSITORY, env=own, check=True)
    return plain


def _report(results: dict[str, Any]) -> None:
    print(f"{'':<22} {'requests/s':>18} {'p50 ms':>15} {'p99 ms':>15} {'ratio':>7}")
    print(f"{'':<22} {'API':>9}{'bare':>9} {'API':>8}{'bare':>7} {'API':>8}{'bare':>7}")
    for row in results["throughput"]:
        api, bare = row["api"], row["bare"]
        print(
            f"{row['case']:<22} {api['per_second']:>9.1f}{bare['per_second']:>9.1f} "
            f"{api['p50_ms']:>8.1f}{bare['p50_ms']:>7.1f} "
            f"{api['p99_ms']:>8.1f}{bare['p99_ms']:>7.1f} {row['ratio']:>7.2f}"
        )
    print(f"\n50 POSTs with one key at once: {results['fifty_posts_with_one_key']}")
    print(f"memory: {results['memory']}\n")
    waiting = results["backlog"]
    print(
        f"{waiting['sweeps_that_plan']} sweeps put 100,000 requests into jobs: median "
        f"{waiting['sweep_that_plans_median_s']} s, worst {waiting['sweep_that_plans_worst_s']} s"
    )
    print(f"sweeps with nothing to plan: {waiting['sweeps_with_nothing_to_plan_s']} s")
    for name, pending in waiting["lists_while_pending_ms"].items():
        planned = waiting["lists_once_planned_ms"][name]
        print(f"{name:<45} {pending['median']:>7.1f} ms {planned['median']:>7.1f} ms")


if __name__ == "__main__":
    sys.exit(main())
