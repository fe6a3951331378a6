"""How fast large deletion requests are accepted: `python -m benchmarks.requests`.

A real API process in front of a real Postgres with 1,000,000 samples. Prints a table and writes
`benchmarks/results/requests.json`.
"""

import json
import os
import random
import statistics
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import psutil  # type: ignore[import-untyped]
from sqlalchemy import insert, literal, select, text
from sqlalchemy.orm import Session

from devstack import local
from domain import sample_digests
from domain.database import sync_engine, sync_sessions
from domain.settings import MigrationSettings
from domain.states import JobKind, JobStatus, RegistrationStatus, Split
from domain.tables import Dataset, Job, Model, Sample, Tombstone

SAMPLES = 1_000_000
SIZES = (1, 1_000, 10_000, 100_000)
REPEATS = 5
RESULTS = Path(__file__).parent / "results" / "requests.json"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, local.servers(Path(folder)) as servers:
        environment = {
            **os.environ,
            "LETHE_DATABASE_URL": servers.database_url,
            "LETHE_BROKER_URL": servers.broker_url,
            "LETHE_STORE": str(Path(folder) / "store"),
            "LETHE_ADMIN_KEY": "a-key-for-benchmarks",
        }
        home = local.Stack(Path(folder), servers.owner_url, environment, local.free_port())
        home.migrate()
        fill(servers.owner_url)
        home.start("api")
        try:
            home.wait_until_ready()
            postmaster = int((Path(folder) / "postgres" / "postmaster.pid").read_text().split()[0])
            report(measure(home, psutil.Process(postmaster)))
        finally:
            home.stop("api")


def fill(database_url: str) -> None:
    """A dataset of `SAMPLES` ids like `sample-00000017`, and a model that forgot 5,000 of them."""
    engine = sync_engine(MigrationSettings(database_url=database_url).database_url)
    with sync_sessions(engine).begin() as session:
        dataset = Dataset(
            name="large", uri="file:///x", definition={}, status=RegistrationStatus.READY
        )
        session.add(dataset)
        session.flush()
        number = text("generate_series(0, :count - 1) AS n").bindparams(count=SAMPLES)
        columns = ["dataset_id", "sample_id", "position", "label", "split"]
        name, position, label = (
            text("'sample-' || lpad(n::text, 8, '0')"),
            text("n"),
            text("n % 10"),
        )
        rows = select(
            literal(dataset.id), name, position, label, literal(Split.TRAIN, Sample.split.type)
        )
        session.execute(insert(Sample).from_select(columns, rows.select_from(number)))
        add_model(session, dataset)
    with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        connection.execute(text("VACUUM ANALYZE"))
    engine.dispose()


def add_model(session: Session, dataset: Dataset) -> None:
    model = Model(
        name="net", dataset_id=dataset.id, weights_uri="", architecture={}, head="head",
        preprocessing={}, policy={}, status=RegistrationStatus.READY,
    )  # fmt: skip
    session.add(model)
    session.flush()
    job = Job(kind=JobKind.UNLEARN, model_id=model.id, status=JobStatus.COMPLETED)
    session.add(job)
    session.flush()
    key = dataset.tombstone_key
    forgotten = [
        {
            "model_id": model.id,
            "digest": sample_digests.digest(key, named(n)),
            "job_id": job.id,
        }
        for n in range(0, SAMPLES, SAMPLES // 5_000)
    ]
    session.execute(insert(Tombstone), forgotten)


def named(number: int) -> str:
    return f"sample-{number:08d}"


def cpu_seconds(api: psutil.Process, postmaster: psutil.Process) -> float:
    """Processor time of the API and Postgres so far, including Postgres processes that ended.

    Unlike wall-clock time, it depends little on other load on the machine.
    """
    own = postmaster.cpu_times()
    used = own.children_user + own.children_system
    for process in (api, postmaster, *postmaster.children()):
        times = process.cpu_times()
        used += times.user + times.system
    return float(used)


def measure(home: local.Stack, postmaster: psutil.Process) -> list[dict[str, Any]]:
    """Seconds from sending a request to receiving its answer, for each size."""
    dice = random.Random(0)
    process = psutil.Process(home.processes["api"].pid)
    results = []
    with httpx2.Client(base_url=home.url, headers=home.headers, timeout=120) as client:
        for kind in ("accepted", "replayed", "unknown ids"):
            for size in SIZES:
                seconds, used = [], []
                for _ in range(REPEATS):
                    ids = [named(n) for n in dice.sample(range(SAMPLES), size)]
                    if kind == "unknown ids":
                        ids[-1] = "nobody"
                    key = {"Idempotency-Key": str(uuid4())}
                    body = {"model": "net", "sample_ids": ids}
                    if kind == "replayed":
                        client.post("/v1/deletion-requests", json=body, headers=key)
                    content = json.dumps(body)
                    headers = key | {"Content-Type": "application/json"}
                    before = cpu_seconds(process, postmaster)
                    started = time.perf_counter()
                    response = client.post(
                        "/v1/deletion-requests", content=content, headers=headers
                    )
                    seconds.append(time.perf_counter() - started)
                    used.append(cpu_seconds(process, postmaster) - before)
                    expected = 422 if kind == "unknown ids" else 202
                    assert response.status_code == expected, response.text
                results.append(
                    {
                        "case": kind,
                        "ids": size,
                        "median_s": round(statistics.median(seconds), 4),
                        "max_s": round(max(seconds), 4),
                        "median_cpu_s": round(statistics.median(used), 4),
                        "api_rss_mib": round(process.memory_info().rss / 2**20),
                    }
                )
    return results


def report(results: list[dict[str, Any]]) -> None:
    print(f"{'case':<12} {'ids':>8} {'median s':>9} {'max s':>8} {'CPU s':>8} {'API MiB':>8}")
    for row in results:
        print(
            f"{row['case']:<12} {row['ids']:>8,} {row['median_s']:>9.3f} {row['max_s']:>8.3f} "
            f"{row['median_cpu_s']:>8.3f} {row['api_rss_mib']:>8}"
        )
    RESULTS.parent.mkdir(exist_ok=True)
    summary = {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "cores": os.cpu_count(),
        "load_average": os.getloadavg()[0],
        "samples_in_the_dataset": SAMPLES,
        "repeats": REPEATS,
        "results": results,
    }
    RESULTS.write_text(json.dumps(summary, indent=2) + "\n")


if __name__ == "__main__":
    main()
