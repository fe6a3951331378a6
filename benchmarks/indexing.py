"""How fast a dataset is indexed: the real job, on an embedded real Postgres.

`python -m benchmarks.indexing` prints a table and writes benchmarks/results/indexing.json.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from io import BytesIO
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any
from uuid import UUID

import numpy as np
import psutil  # type: ignore[import-untyped]
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from sqlalchemy import Engine, create_engine, delete, text
from sqlalchemy.orm import Session, sessionmaker
from uuid_utils.compat import uuid7

from benchmarks.requests import cpu_seconds
from devstack import local, roles
from domain.database import DRIVER, JOB, sync_engine, sync_sessions
from domain.settings import WorkerSettings
from domain.states import JobKind, RegistrationStatus
from domain.tables import Dataset, Job, Sample
from worker.engine import lease
from worker.engine.workbench import Workbench
from worker.jobs.index_dataset import index_dataset
from worker.store.artifacts import Store

RESULTS = Path(__file__).parent / "results" / "indexing.json"
ROW_GROUP = 50_000
PIXELS = 64
SIDE = 64
CLASSES = 10
COLUMNS = {"sample_id": "id", "input": "input", "label": "label", "split": "split"}
SPLITS = {"train": "train", "holdout": "holdout", "test": "test"}


@dataclass(frozen=True, slots=True)
class Figure:
    """One dataset, indexed."""

    inputs: str
    people: str | None
    """How people's rows lie; None without a column of groups."""

    rows: int
    file_mb: float
    seconds: float
    processor_seconds: float
    """Of this process and all of Postgres: they depend less on what else the machine does."""

    times_as_long: float | None
    """As without a column of groups: the median over the rounds, each kind against the same round's
    arrays without people."""

    times_the_processor: float | None
    """The same of processor seconds."""

    rows_per_second: int
    peak_memory_mb: int
    """Peak memory of this process so far, without Postgres."""


@dataclass(frozen=True, slots=True)
class Stack:
    """What the job runs on."""

    settings: WorkerSettings
    sessions: sessionmaker[Session]
    superuser: Engine
    """For what no role of the service may do."""

    postmaster: psutil.Process


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--arrays", type=int, default=1_000_000, help="rows of uint8 arrays")
    parser.add_argument("--images", type=int, default=50_000, help="rows of JPEG images")
    parser.add_argument("--people", type=int, default=50_000, help="groups of the arrays' rows")
    parser.add_argument("--times", type=int, default=3, help="runs of each; the median is told")
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        with local.servers(root / "servers") as servers:
            settings = _migrated(servers, root)
            engine = sync_engine(settings.database_url, JOB)
            owner = create_engine(
                servers.superuser_url.replace("postgresql://", DRIVER), isolation_level="AUTOCOMMIT"
            )
            postmaster = (root / "servers" / "postgres" / "postmaster.pid").read_text().split()[0]
            stack = Stack(settings, sync_sessions(engine), owner, psutil.Process(int(postmaster)))
            figures = _measured(stack, wanted)
            engine.dispose()
            owner.dispose()
    _print(figures)
    RESULTS.parent.mkdir(exist_ok=True)
    report = {"cores": os.cpu_count(), "figures": [asdict(figure) for figure in figures]}
    RESULTS.write_text(json.dumps(report, indent=2) + "\n")


def _measured(stack: Stack, wanted: argparse.Namespace) -> list[Figure]:
    """Every kind in turn, so that what else the machine does meets all of them alike."""
    kinds: list[tuple[Callable[[], Iterator[pa.RecordBatch]], int, str, str]] = [
        (lambda: _arrays(wanted.arrays), wanted.arrays, "array", ""),
        (lambda: _of_people(wanted.arrays, wanted.people), wanted.arrays, "array", "in turns"),
        (lambda: _of_people(wanted.arrays, wanted.arrays), wanted.arrays, "array", "one row each"),
        (lambda: _images(wanted.images), wanted.images, "jpeg", ""),
    ]
    rounds = []
    for _ in range(wanted.times):
        rounds.append([
            _indexed(stack, make(), rows, kind, people) for make, rows, kind, people in kinds
        ])  # fmt: skip
        _print(rounds[-1])
    each_kind = zip(*rounds, strict=True)
    return [_middle(each, [figures[0] for figures in rounds]) for each in each_kind]


def _middle(runs: Sequence[Figure], without: Sequence[Figure]) -> Figure:
    """The median run of one kind, and how it compares with the arrays without people."""
    middle = sorted(runs, key=lambda run: run.seconds)[len(runs) // 2]
    if middle.people is None:
        return middle
    pairs = list(zip(runs, without, strict=True))
    return replace(
        middle,
        processor_seconds=median(run.processor_seconds for run in runs),
        times_as_long=round(median(run.seconds / other.seconds for run, other in pairs), 2),
        times_the_processor=round(
            median(run.processor_seconds / other.processor_seconds for run, other in pairs), 2
        ),
    )


def _of_people(rows: int, people: int) -> Iterator[pa.RecordBatch]:
    """The arrays, with a column that says whose each row is: one person after the other."""
    first = 0
    for batch in _arrays(rows):
        numbers = np.arange(first, first + batch.num_rows) % people
        who = pa.array([f"person-{number:09d}@example.org" for number in numbers.tolist()])
        yield batch.append_column("person", who)
        first += batch.num_rows


def _migrated(servers: local.Servers, root: Path) -> WorkerSettings:
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
    return settings


def _indexed(
    stack: Stack, batches: Iterator[pa.RecordBatch], rows: int, kind: str, people: str
) -> Figure:
    """Write the dataset, index it, and check that all of it is there; then forget it."""
    path = stack.settings.store.parent / f"{kind}.parquet"
    first = next(batches)
    with pq.ParquetWriter(path, first.schema) as writer:
        writer.write_batch(first)
        for batch in batches:
            writer.write_batch(batch)
    of_kind: dict[str, Any] = {"kind": "image", "input_shape": None}
    if kind == "array":
        of_kind = {"kind": "pixels", "input_shape": [PIXELS]}
    columns = {**COLUMNS, "group": "person"} if people else COLUMNS
    definition = {**of_kind, "columns": columns, "splits": SPLITS}
    bench, dataset_id = _claimed(stack.settings, stack.sessions, path, definition)
    before, started = cpu_seconds(psutil.Process(), stack.postmaster), perf_counter()
    index_dataset(bench)
    seconds = perf_counter() - started
    processor = cpu_seconds(psutil.Process(), stack.postmaster) - before
    with stack.sessions.begin() as session:
        dataset = session.get_one(Dataset, dataset_id)
        assert dataset.status is RegistrationStatus.READY, dataset.failure
        assert dataset.report is not None
        assert sum(dataset.report["samples"].values()) == rows
        session.execute(delete(Sample).filter_by(dataset_id=dataset_id))
    with stack.superuser.connect() as connection:  # so that the next run does not pay for it
        for statement in ("VACUUM samples", "VACUUM staged_samples", "CHECKPOINT"):
            connection.execute(text(statement))
    return Figure(
        inputs=f"uint8 array of {PIXELS}" if kind == "array" else f"JPEG {SIDE} x {SIDE}",
        people=people or None,
        rows=rows,
        file_mb=round(path.stat().st_size / 2**20, 1),
        seconds=round(seconds, 1),
        processor_seconds=round(processor, 1),
        times_as_long=None,
        times_the_processor=None,
        rows_per_second=round(rows / seconds),
        peak_memory_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 2**10,
    )


def _claimed(
    settings: WorkerSettings,
    sessions: sessionmaker[Session],
    path: Path,
    definition: dict[str, Any],
) -> tuple[Workbench, UUID]:
    with sessions.begin() as session:
        dataset = Dataset(name=f"{path.stem} {uuid7()}", uri=path.as_uri(), definition=definition)
        session.add(dataset)
        session.flush()
        job = Job(kind=JobKind.INDEX_DATASET, dataset_id=dataset.id)
        session.add(job)
        session.flush()
        claim = lease.claim(session, job.id, worker="benchmark", lease=timedelta(hours=1))
    assert claim is not None
    store = Store(settings.store)
    return Workbench(claim, sessions, store, settings), dataset.id


def _arrays(count: int) -> Iterator[pa.RecordBatch]:
    rng = np.random.default_rng(0)
    for first in range(0, count, ROW_GROUP):
        rows = min(ROW_GROUP, count - first)
        pixels = pa.array(rng.integers(0, 256, rows * PIXELS, dtype=np.uint8))
        yield _batch(first, rows, pa.FixedSizeListArray.from_arrays(pixels, PIXELS))


def _images(count: int) -> Iterator[pa.RecordBatch]:
    """A thousand different images, repeated: decoding is what is measured."""
    rng = np.random.default_rng(0)
    pictures = [_jpeg(rng) for _ in range(min(count, 1000))]
    for first in range(0, count, ROW_GROUP):
        rows = min(ROW_GROUP, count - first)
        values = [pictures[(first + row) % len(pictures)] for row in range(rows)]
        yield _batch(first, rows, pa.array(values, pa.binary()))


def _jpeg(rng: np.random.Generator) -> bytes:
    coarse = rng.integers(0, 256, (SIDE // 8, SIDE // 8, 3), dtype=np.uint8)
    file = BytesIO()
    Image.fromarray(coarse).resize((SIDE, SIDE)).save(file, "JPEG", quality=90)
    return file.getvalue()


def _batch(first: int, rows: int, inputs: pa.Array) -> pa.RecordBatch:
    """Ids in the order of a shuffled customer table; 8 of 10 rows are for training."""
    numbers = np.arange(first, first + rows, dtype=np.uint64)
    scattered = numbers * np.uint64(0x9E3779B97F4A7C15)  # a bijection, so no id occurs twice
    splits = np.array(["train"] * 8 + ["holdout", "test"])[numbers.astype(int) % 10]
    return pa.record_batch({
        "id": pa.array([f"customer-{number:020d}" for number in scattered.tolist()]),
        "input": inputs,
        "label": pa.array(numbers.astype(np.int64) % CLASSES),
        "split": pa.array(splits).dictionary_encode(),
    })  # fmt: skip


def _print(figures: list[Figure]) -> None:
    print(
        f"{'inputs':<20}{'people':<14}{'rows':>12}{'file MB':>10}{'seconds':>10}{'x':>6}"
        f"{'processor s':>12}{'x':>6}{'rows/s':>10}{'peak MB':>10}"
    )
    for figure in figures:
        print(
            f"{figure.inputs:<20}{figure.people or '-':<14}{figure.rows:>12,}{figure.file_mb:>10}"
            f"{figure.seconds:>10}{figure.times_as_long or '':>6}"
            f"{figure.processor_seconds:>12}{figure.times_the_processor or '':>6}"
            f"{figure.rows_per_second:>10,}{figure.peak_memory_mb:>10}",
            flush=True,
        )


if __name__ == "__main__":
    main()
