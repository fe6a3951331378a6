"""Networks that people really use: unlearning beside retraining and other methods.

`make bench-real` prints the tables and writes benchmarks/results/real-cpu.json and .md. Networks
and finished rows are cached, so an interrupted run continues there. All on one thread.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from benchmarks.quality.measure import save
from benchmarks.quality.prepare import SEEDS
from benchmarks.quality.rows import OURS, Row
from benchmarks.real import report
from benchmarks.real.networks import DEV, NETWORKS, Problem
from benchmarks.real.rows import METHODS, Bench, settings_of

ROOT = Path(__file__).parents[2]


def main() -> None:
    """Train, tune, unlearn, report; what a network gave is kept before the next one begins."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=ROOT / "../shared/data")
    parser.add_argument("--cache", type=Path, default=ROOT / ".cache/real")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=[*NETWORKS])
    options = parser.parse_args()
    torch.set_num_threads(1)
    path = ROOT / "benchmarks/results/real-cpu.json"
    found = json.loads(path.read_text()) if path.exists() else {}
    for name in options.networks:
        bench = Bench(NETWORKS[name](options.data, options.cache), options.cache)
        rows = []
        for row in rows_of(bench):
            rows.append(row)
            print(report.line(row), flush=True)
        found[name] = {"about": about(bench.problem), "rows": rows}
        ordered = {each: found[each] for each in NETWORKS if each in found}
        save(path, ordered)
        path.with_suffix(".md").write_text(report.tables(ordered))
    print(report.tables(found))


def rows_of(bench: Bench) -> Iterator[dict[str, Any]]:
    """All rows of a network: ours with two seeds and no settings, each baseline with those that
    came closest to retraining on the forget set it was tuned on."""
    reported = [name for name in bench.problem.requests if name != DEV]
    for name in reported:
        yield from bench.retrained(name)
        for seed in SEEDS[:2]:
            yield bench.row(Row(name, OURS, seed))
    for method in METHODS:
        settings = chosen(bench, method)
        for name in reported:
            yield bench.row(Row(name, method, SEEDS[0], settings))


def chosen(bench: Bench, method: str) -> str:
    """The settings of a baseline with the smallest average gap on the forget set for tuning."""
    tried = settings_of(method, bench.problem)
    if len(set(tried)) == 1:
        return tried[0]
    return min(tried, key=lambda settings: bench.row(Row(DEV, method, 0, settings))["avg_gap"])


def about(problem: Problem) -> dict[str, Any]:
    """What the network is, and how much it learned from."""
    return {
        "class": type(problem.build()).__name__,
        "parameters": sum(each.numel() for each in problem.build().parameters()),
        "training_samples": len(problem.data.train),
        "epochs": problem.recipe.epochs,
        "forgotten": {name: int(r.forgotten.sum()) for name, r in problem.requests.items()},
    }


if __name__ == "__main__":
    main()
