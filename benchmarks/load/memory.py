"""Whether the API, an idle worker and beat grow while 10,000 requests come in.

Every submission names samples that are already forgotten: it is stored and answered and rings for a
sweep like any other, but leaves the worker idle.
"""

from typing import Any

import psutil  # type: ignore[import-untyped]

from benchmarks.load.throughput import Side, Workload, load
from devstack import local

HALF = 5_000
LIMIT = 1.03
"""The second half may add three per cent to the resident memory after the first."""

FORGOTTEN = Workload("forgotten", "forgotten", 10)


def measure(home: local.Stack, side: Side) -> dict[str, Any]:
    """Resident MiB of each process before any, after 5,000 and after 10,000 submissions."""
    readings = [_resident(home)]
    for _ in range(2):
        sent = 0
        while sent < HALF:
            sent += load(side, FORGOTTEN, seconds=5).requests
        readings.append(_resident(home))
    _, middle, end = readings
    grew = {name: round(end[name] / middle[name], 3) for name in end}
    return {
        "submissions": 2 * HALF,
        "before_mib": readings[0],
        "after_half_mib": middle,
        "after_all_mib": end,
        "second_half_grew_by": grew,
        "does_not_grow": all(ratio <= LIMIT for ratio in grew.values()),
    }


def _resident(home: local.Stack) -> dict[str, float]:
    sizes = {}
    for name, process in home.processes.items():
        tree = psutil.Process(process.pid)
        resident = sum(part.memory_info().rss for part in (tree, *tree.children(recursive=True)))
        sizes[name] = round(resident / 2**20, 1)
    return sizes
