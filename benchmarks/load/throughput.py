"""Requests per second and latencies, in rounds that alternate between API and bare routes."""

import json
import subprocess
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any
from uuid import uuid4

SCRIPT = Path(__file__).with_name("wrk.lua")
CONNECTIONS = 8
"""Fewer than the API's connections to Postgres, so that no request waits for one."""


@dataclass(frozen=True, slots=True)
class Workload:
    name: str
    kind: str
    """`post`, `get`, `mix` or `forgotten`, as `wrk.lua` knows it."""

    samples: int
    limit: str = "/requests"
    """The bare route it is compared with."""


@dataclass(frozen=True, slots=True)
class Side:
    """A server under load."""

    url: str
    path: str
    token: str
    known: Path
    """A file with ids of requests that can be read from it."""


@dataclass(frozen=True, slots=True)
class Figures:
    requests: int
    per_second: float
    p50_ms: float
    p99_ms: float


CASES = (
    Workload("POST, 10 ids", "post", 10),
    Workload("the same, beside rows", "post", 10, limit="/rows"),
    Workload("the same, by the driver", "post", 10, limit="/driver"),
    Workload("GET", "get", 10),
    Workload("POST : GET = 1 : 20", "mix", 10),
    Workload("POST, 1,000 ids", "post", 1_000),
)


def measure(api: Side, bare: Side, *, rounds: int, seconds: float) -> Iterator[dict[str, Any]]:
    """Measure each case in rounds with both sides, alternating which goes first."""
    for case in CASES:
        bare = replace(bare, path=case.limit)
        for side in (api, bare):
            load(side, case, seconds=seconds / 2)
        pairs = []
        for number in range(rounds):
            if number % 2:
                limit = load(bare, case, seconds=seconds)
                ours = load(api, case, seconds=seconds)
            else:
                ours = load(api, case, seconds=seconds)
                limit = load(bare, case, seconds=seconds)
            pairs.append((ours, limit))
        ratios = [ours.per_second / limit.per_second for ours, limit in pairs]
        yield {
            "case": case.name,
            "api": asdict(_middle([ours for ours, _ in pairs])),
            "bare": asdict(_middle([limit for _, limit in pairs])),
            "ratio": round(median(ratios), 3),
            "ratios": [round(ratio, 3) for ratio in ratios],
        }


def load(side: Side, case: Workload, *, seconds: float) -> Figures:
    """Send requests from another process for this long. Raises RuntimeError if one was refused."""
    command = ["wrk", "--threads=1", f"--connections={CONNECTIONS}", f"--duration={seconds:.0f}s",
               f"--script={SCRIPT}", side.url, "--", case.kind, side.path, str(uuid4()),
               str(case.samples), str(side.known), side.token]  # fmt: skip
    ran = subprocess.run(command, check=True, capture_output=True, text=True)
    result = json.loads(ran.stdout[ran.stdout.rindex("{") :])
    if result["refused"] or result["broken"]:
        raise RuntimeError(f"not all requests were answered: {result}")
    per_second = result["requests"] / result["seconds"]
    return Figures(result["requests"], per_second, result["p50_ms"], result["p99_ms"])


def _middle(figures: list[Figures]) -> Figures:
    return Figures(
        requests=sum(run.requests for run in figures),
        per_second=round(median(run.per_second for run in figures), 1),
        p50_ms=round(median(run.p50_ms for run in figures), 2),
        p99_ms=round(median(run.p99_ms for run in figures), 2),
    )
