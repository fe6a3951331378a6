"""What a small job takes, from the request to its end: `python -m benchmarks.small_jobs`.

Starts a stack of its own, registers the demo's digits and network, and asks it to forget 1, 10, 50
and 100 samples, one request after another, several times over. Meanwhile it looks into the database
to see what each job is at, prints a table, and writes benchmarks/results/small-jobs.json.
"""

import argparse
import json
import os
import statistics
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import perf_counter, sleep
from typing import Any
from uuid import uuid4

import numpy as np
import pyarrow.parquet as pq
from sqlalchemy import Row, func, select
from sqlalchemy.orm import Session, sessionmaker

from benchmarks.scaling import watched
from devstack import local
from devstack.demo import case, tour
from domain.database import sync_engine, sync_sessions
from domain.settings import MigrationSettings
from domain.states import JobKind, JobStatus
from domain.tables import Evaluation, Job, Round

RESULT = Path(__file__).parent / "results" / "small-jobs.json"
SIZES = (1, 10, 50, 100)
TARGET_S = 4.0
"""From the request to the end of the job, on a machine with nothing else to do."""

LOOK_S = 0.005
REST_S = 2.0
"""Before each request, so that nothing of the one before is still at work."""

ACCEPTED, PLANNED, TAKEN, STARTED = "answer", "plan", "take", "start the process"
LOADED, EVALUATED, FORGOTTEN = "load model and data", "evaluate the champion", "forget"
JUDGED, TOGETHER, STORED = "judge the new version", "judge all together", "store"
ENDED = "ended"
STAGES = (
    ACCEPTED, PLANNED, TAKEN, STARTED, LOADED, EVALUATED, FORGOTTEN, JUDGED, TOGETHER, STORED,
)  # fmt: skip
PHASES = {
    "starting": STARTED,
    "loading the model and its data": LOADED,
    "fine-tuning a copy of the new version": JUDGED,
    "judging all that was forgotten together": TOGETHER,
    "storing the new version": STORED,
}
"""What jobs call the stages. The others go by what is stored meanwhile: see `_stage`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """One request and its job."""

    samples: int
    seconds: float
    """From sending the request to the end of the job."""

    processor_seconds: float
    """Of the job's process, which other load hardly changes."""

    rounds: int
    verdict: str
    stages: dict[str, float]
    """Seconds of each."""


@dataclass(slots=True)
class Watch:
    """When each stage was first seen, in turns."""

    seen: list[tuple[float, str]] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)

    def see(self, stage: str) -> None:
        if not self.seen or self.seen[-1][1] != stage:
            self.seen.append((perf_counter(), stage))

    def seconds(self) -> dict[str, float]:
        lasted = dict.fromkeys(STAGES, 0.0)
        for (start, stage), (end, _) in zip(self.seen, self.seen[1:], strict=False):
            lasted[stage] += end - start
        return lasted


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--result", type=Path, default=RESULT)
    options = parser.parse_args()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as name:
        found = measure(Path(name), options.sizes, options.times)
    report = {"cores": os.cpu_count(), "load_average": round(load, 1), **summary(found)}
    options.result.write_text(json.dumps(report, indent=1) + "\n")
    print(table(report))


def measure(folder: Path, sizes: Sequence[int], times: int) -> list[Timed]:
    """All sizes in turns, each turn with a network of its own."""
    data = folder / "data"
    data.mkdir()
    files = case.prepare(data, seed=0)
    trained_on = pq.read_table(files.records, filters=[("split", "=", "train")])["sample_id"]
    found = []
    with local.stack(folder / "stack", LETHE_DATA_ROOTS=json.dumps([str(data)])) as home:
        engine = sync_engine(MigrationSettings(database_url=home.owner_url).database_url)
        client = local.Client(home)
        for turn in range(times):
            left = np.random.default_rng(turn).permutation(trained_on.to_pylist()).tolist()
            model = tour.register(client, files, seed=turn)[1]["name"]
            for size in sizes:
                asked, left = left[:size], left[size:]
                found.append(timed(client, home, sync_sessions(engine), model, asked))
                print(line(found[-1]), flush=True)
        engine.dispose()
    return found


def timed(
    client: local.Client,
    home: local.Stack,
    sessions: sessionmaker[Session],
    model: str,
    sample_ids: Sequence[str],
) -> Timed:
    """One request to forget these samples of the model."""
    sleep(REST_S)
    body = {"model": model, "sample_ids": sample_ids, "urgent": True}
    with watched(home) as used, watching(sessions) as watch:
        where = client.post("/v1/deletion-requests", body, **{"Idempotency-Key": str(uuid4())})
        watch.see(PLANNED)
        if not watch.ended.wait(300):
            raise TimeoutError(f"the job for {where} did not end: {client.get(where)}")
    job = client.get(f"/v1/jobs/{client.get(where)['targets'][0]['job_id']}")
    return Timed(
        samples=len(sample_ids),
        seconds=watch.seen[-1][0] - watch.seen[0][0],
        processor_seconds=used.cpu_s,
        rounds=len(job["rounds"]),
        verdict=job["verdict"],
        stages=watch.seconds(),
    )


@contextmanager
def watching(sessions: sessionmaker[Session]) -> Iterator[Watch]:
    """Watch the next job that makes a model forget, until it ends."""
    with sessions() as session:
        since = session.scalars(select(func.clock_timestamp())).one()
    evaluations, rounds = (
        select(func.count()).where(each.job_id == Job.id).scalar_subquery()
        for each in (Evaluation, Round)
    )
    what = select(Job.status, Job.phase, evaluations.label("evaluations"), rounds.label("rounds"))
    what = what.where(Job.kind == JobKind.UNLEARN, Job.created_at > since)
    watch, stop = Watch(), threading.Event()

    def look() -> None:
        while not stop.wait(LOOK_S):
            with sessions() as session:
                job = session.execute(what).first()
            if job is not None:
                watch.see(_stage(job))
                if watch.seen[-1][1] == ENDED:
                    watch.ended.set()
                    return

    thread = threading.Thread(target=look)
    watch.see(ACCEPTED)
    thread.start()
    try:
        yield watch
    finally:
        stop.set()
        thread.join()


def _stage(job: Row[Any]) -> str:
    if job.status is JobStatus.QUEUED:
        return TAKEN
    if job.status is not JobStatus.RUNNING:
        return ENDED
    if job.phase in PHASES:
        return PHASES[job.phase]
    if not job.evaluations:
        return EVALUATED
    judging = job.phase.endswith("judging the new version")
    return JUDGED if judging and job.phase.startswith(f"round {job.rounds + 1}") else FORGOTTEN


def summary(found: Sequence[Timed]) -> dict[str, Any]:
    """Median and worst of each size, and all runs."""
    sizes = []
    for count in dict.fromkeys(each.samples for each in found):
        runs = [each for each in found if each.samples == count]
        seconds = [each.seconds for each in runs]
        sizes.append(
            {
                "samples": count,
                "median_s": statistics.median(seconds),
                "worst_s": max(seconds),
                "processor_s": statistics.median(each.processor_seconds for each in runs),
                "rounds": [each.rounds for each in runs],
                "stages_s": {
                    stage: statistics.median(each.stages[stage] for each in runs)
                    for stage in STAGES
                },
            }
        )
    return {
        "target_s": TARGET_S,
        "reached": all(each.seconds <= TARGET_S for each in found),
        "sizes": sizes,
        "runs": [asdict(each) for each in found],
    }


def line(one: Timed) -> str:
    """One request, for people."""
    parts = ", ".join(f"{stage} {lasted:.2f}" for stage, lasted in one.stages.items())
    return (
        f"{one.samples:>4}: {one.seconds:.2f} s, of the processor {one.processor_seconds:.2f} s, "
        f"{one.rounds} rounds, {one.verdict}: {parts}"
    )


def table(report: dict[str, Any]) -> str:
    """In Markdown."""
    names = " | ".join(STAGES)
    lines = [
        f"| samples | median s | worst s | processor s | {names} |",
        "|---" * (4 + len(STAGES)) + "|",
    ]
    for size in report["sizes"]:
        parts = " | ".join(f"{lasted:.2f}" for lasted in size["stages_s"].values())
        lines.append(
            f"| {size['samples']} | {size['median_s']:.1f} | {size['worst_s']:.1f} | "
            f"{size['processor_s']:.1f} | {parts} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
