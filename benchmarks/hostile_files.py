"""What small files can cost that say or become more than they are: peak memory and time.

`python -m benchmarks.hostile_files` makes each file, has a worker's job process index it (or
register it, for weights) on an embedded real Postgres, prints a table and writes
benchmarks/results/hostile_files.json. Each hostile file stands beside the honest one of its kind,
whose rows fill the batches in which files are read.
"""

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy.orm import Session, sessionmaker

from benchmarks import hostile
from benchmarks.hostile import Case
from devstack import local, roles
from domain.database import sync_engine, sync_sessions
from domain.settings import WorkerSettings
from domain.states import JobKind, JobStatus
from domain.tables import Dataset, Job
from worker import child
from worker.engine import lease

RESULTS = Path(__file__).parent / "results" / "hostile_files.json"
LOOK_S = 0.01
"""How often the job's peak memory is read, while it runs."""

ALLOWED = 1.5
"""How many times the peak memory of the honest file a hostile one may take."""


@dataclass(slots=True)
class Figure:
    """One file, and what its job took."""

    case: str
    kind: str
    file_kb: float
    seconds: float
    peak_mb: int
    outcome: str
    times_honest: float = 1.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("only", nargs="*", help="names of cases; all of them if none is given")
    parser.add_argument("--limit", type=float, default=300, help="seconds that a job may take")
    wanted = parser.parse_args()
    with _running() as (settings, sessions):
        cases = [case for case in hostile.CASES if not wanted.only or case.name in wanted.only]
        figures = []
        for case in cases:
            figures.append(_tried(settings, sessions, case, wanted.limit))
            print(_line(figures[-1]), flush=True)
    honest = {figure.kind: figure.peak_mb for figure in figures if figure.case.startswith("honest")}
    for figure in figures:
        figure.times_honest = round(figure.peak_mb / honest.get(figure.kind, figure.peak_mb), 2)
    _print(figures)
    if not wanted.only:
        report = {"cores": os.cpu_count(), "figures": [asdict(figure) for figure in figures]}
        RESULTS.write_text(json.dumps(report, indent=2) + "\n")
    return sum(figure.times_honest > ALLOWED for figure in figures)


@contextmanager
def _running() -> Iterator[tuple[WorkerSettings, sessionmaker[Session]]]:
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        with local.servers(root / "servers") as servers:
            settings = WorkerSettings(
                database_url=roles.as_role(servers.database_url, roles.EITHER),
                broker_url=servers.broker_url,
                store=root / "store",
                data_roots=[root],
            )
            subprocess.run(
                [sys.executable, "-m", "alembic", "upgrade", "head"],
                cwd=local.REPOSITORY,
                env={**os.environ, "LETHE_DATABASE_URL": servers.owner_url},
                check=True,
                capture_output=True,
            )
            engine = sync_engine(settings.database_url)
            yield settings, sync_sessions(engine)
            engine.dispose()


def _tried(
    settings: WorkerSettings, sessions: sessionmaker[Session], case: Case, limit: float
) -> Figure:
    """Write the file, and have the job's own process read it."""
    directory = settings.data_roots[0] / case.name.replace(" ", "-").replace("/", "-")
    directory.mkdir()
    file = directory / "data.parquet"
    case.write(file)
    job_id = _queued(sessions, file, case)
    seconds, peak_mb = _watched(settings, job_id, limit)
    with sessions() as session:
        job = session.get_one(Job, job_id)
        outcome = "ready" if job.status is JobStatus.COMPLETED else job.status.value
        if job.failure:
            outcome = f"{job.failure['kind']}: {job.failure['reason']}"
    size = file.stat().st_size / 1000
    file.unlink()
    return Figure(case.name, case.kind, round(size, 1), round(seconds, 1), peak_mb, outcome)


def _queued(sessions: sessionmaker[Session], file: Path, case: Case) -> UUID:
    definition: dict[str, Any] = {
        "kind": "image" if case.kind == "images" else "pixels",
        "columns": hostile.COLUMNS,
        "splits": hostile.SPLITS,
        "input_shape": case.input_shape,
        "bad_rows": "skip",
    }
    with sessions.begin() as session:
        dataset = Dataset(name=file.parent.name, uri=file.as_uri(), definition=definition)
        session.add(dataset)
        session.flush()
        job = Job(kind=JobKind.INDEX_DATASET, dataset_id=dataset.id)
        session.add(job)
        session.flush()
        lease.claim(session, job.id, worker="benchmark", lease=timedelta(hours=1))
    return job.id


def _watched(settings: WorkerSettings, job_id: UUID, limit: float) -> tuple[float, int]:
    """Seconds and peak memory in MB of the job's process."""
    os.environ |= {
        "LETHE_DATABASE_URL": settings.database_url.get_secret_value(),
        "LETHE_BROKER_URL": settings.broker_url.get_secret_value(),
        "LETHE_STORE": str(settings.store),
        "LETHE_DATA_ROOTS": json.dumps([str(root) for root in settings.data_roots]),
        "LETHE_DEVICE": "cpu",
    }
    job = multiprocessing.get_context("spawn").Process(
        target=_quietly, args=(str(job_id), 1, JobKind.INDEX_DATASET)
    )
    started = time.perf_counter()
    job.start()
    peak = 0
    while job.exitcode is None:
        peak = max(peak, _peak_mb(job.pid or 0))
        if time.perf_counter() - started > limit:
            job.kill()
        time.sleep(LOOK_S)
    return time.perf_counter() - started, peak


def _quietly(job_id: str, attempt: int, kind: str) -> None:
    """What a worker's child does, without its log unless LOUD is set."""
    if "LOUD" not in os.environ:
        silent = os.open(os.devnull, os.O_WRONLY)
        for stream in (1, 2):
            os.dup2(silent, stream)
    child.main(job_id, attempt, kind)


def _peak_mb(pid: int) -> int:
    """The most memory that the process has had so far; 0 once it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) // 1024 for line in lines if line.startswith("VmHWM"))


def _print(figures: list[Figure]) -> None:
    print(f"\n{'file':<46}{'KB':>10}{'seconds':>9}{'peak MB':>9}{'x honest':>10}  outcome")
    for figure in figures:
        print(_line(figure))


def _line(figure: Figure) -> str:
    return (
        f"{figure.case:<46}{figure.file_kb:>10,}{figure.seconds:>9}{figure.peak_mb:>9,}"
        f"{figure.times_honest:>10}  {figure.outcome[:90]}"
    )


if __name__ == "__main__":
    sys.exit(main())
