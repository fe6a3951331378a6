"""How close unlearning comes to retraining, beside other methods: one command, resumable.

`make bench-quality SIZE=cpu` prints the tables and writes benchmarks/results/quality-cpu.json, .md
and .png. Models and finished rows are kept in the cache: a run that was cut off goes on there.
"""

import argparse
import json
import statistics
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from benchmarks.quality import calibration, methods, prepare, report
from benchmarks.quality.measure import save
from benchmarks.quality.prepare import DEV_SEED, SEEDS, Bench
from benchmarks.quality.rows import OURS, OURS_WITH, Row, oracle_rows, perform

ROOT = Path(__file__).parents[2]
MAIN = ("random 10 %", "class")
OTHERS = (
    "part of a class", "memorised", "canaries", "random 100", "random 10", "random 1",
)  # fmt: skip
SEQUENCE = "sequence"
TUNED = 3
"""Settings each opponent is tried with: the first of its `SEARCH`, its paper's own among them."""

ABLATIONS: dict[str, dict[str, Any]] = {
    "without alignment": {"alignment_weight": 0.0},
    "without distillation": {"distillation_weight": 0.0},
    "without the shift": {"initial_shift": 0.0, "shift_gain": 0.0},
    "without company": {"retain_weight": 0.0},
    "without alternation": {"recover_samples": 2},
    "without spread": {"spread": 0.0},
    "without early stop": {"stop_at": 2.0},
}


def main() -> None:
    """Prepare, tune, run, calibrate, report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=["cpu"], default="cpu")
    parser.add_argument("--data", type=Path, default=ROOT / "../shared/data")
    parser.add_argument("--cache", type=Path, default=ROOT / ".cache/quality")
    parser.add_argument("--workers", type=int, default=2, help="processes of one thread each")
    parser.add_argument("--report", action="store_true", help="only from what is in the cache")
    options = parser.parse_args()
    if not options.report:
        prepare.prepare(options.data, options.cache, options.workers)
    run = Runner(options.data, options.cache, 0 if options.report else options.workers)

    ours = run.rows(our_rows())
    cases = calibration.cases(options.data, options.cache, make=not options.report)
    ablated = run.rows(ablation_rows())
    tried = run.rows(tuning_rows())
    best = chosen_settings(tried)
    theirs = run.rows(opponent_rows(best))
    bench = Bench.open(options.data, options.cache)
    every = bench.scenarios()
    compared = dict.fromkeys(row["scenario"] for row in (*ours, *theirs))
    oracles = [row for name in compared for row in oracle_rows(bench, every[name])]
    found = {
        "size": options.size,
        "tuning": f"{TUNED} settings for each opponent on the dev scenarios, by average gap",
        "settings": best,
        "rows": [*oracles, *ours, *theirs],
        "ablations": ablated,
        "calibration": calibration.summary(cases),
        "cases": cases,
    }
    results = ROOT / "benchmarks/results"
    save(results / f"quality-{options.size}.json", found)
    text = report.tables(found)
    (results / f"quality-{options.size}.md").write_text(text)
    report.plot(found, results / f"quality-{options.size}.png")
    print(text)


class Runner:
    """Makes rows in processes of their own, two at a time; or reads those already made."""

    def __init__(self, images: Path, cache: Path, workers: int) -> None:
        self._images, self._cache, self._workers = images, cache, workers

    def rows(self, wanted: Iterable[Row]) -> list[dict[str, Any]]:
        """The rows, in the order in which they were named; without workers, those there are."""
        wanted = list(wanted)
        if not self._workers:
            paths = [self._cache / "rows" / f"{row.key()}.json" for row in wanted]
            return [json.loads(path.read_text()) for path in paths if path.exists()]
        with ProcessPoolExecutor(
            self._workers, mp_context=get_context("spawn"), max_tasks_per_child=1
        ) as pool:
            waiting = {
                pool.submit(perform, row, self._images, self._cache, 1): row for row in wanted
            }
            for done in as_completed(waiting):
                row = done.result()
                print(
                    f"{row['scenario']:16} {row['method']:24} seed {row['seed']}  "
                    f"gap {row['avg_gap']:5.2f}  KL {row['kl_oracle']:.2f}  "
                    f"time {row['time_ratio']:.2f}  {row['verdict']}",
                    flush=True,
                )
        return [future.result() for future in waiting]


def our_rows() -> Iterator[Row]:
    """Both our ways on everything: three seeds where a target is set, one elsewhere."""
    for method in (OURS_WITH, OURS):
        for scenario in MAIN:
            yield from (Row(scenario, method, seed) for seed in SEEDS)
    for scenario in (*OTHERS, SEQUENCE):
        yield from (Row(scenario, method, SEEDS[0]) for method in (OURS_WITH, OURS))


def ablation_rows() -> Iterator[Row]:
    """Our way with one part less, on what it was tuned on."""
    for name, settings in {"the method": {}, **ABLATIONS}.items():
        del name
        for scenario in ("dev random", "dev class"):
            yield Row(scenario, OURS_WITH, DEV_SEED, json.dumps(settings))


def tuning_rows() -> Iterator[Row]:
    for name, method in methods.METHODS.items():
        for settings in method.SEARCH[:TUNED]:
            for scenario in ("dev random", "dev class"):
                yield Row(scenario, name, DEV_SEED, json.dumps(settings))


def chosen_settings(tried: list[dict[str, Any]]) -> dict[str, Any]:
    """Each method's settings of the lowest average gap, mean over the two dev scenarios."""
    best: dict[str, Any] = {}
    for name in methods.METHODS:
        gaps: dict[str, list[float]] = {}
        for row in tried:
            if row["method"] == name:
                gaps.setdefault(json.dumps(row["settings"]), []).append(row["avg_gap"])
        if gaps:
            best[name] = json.loads(min(gaps, key=lambda settings: statistics.mean(gaps[settings])))
    return best


def opponent_rows(best: dict[str, Any]) -> Iterator[Row]:
    """Every opponent as it was tuned: three seeds where a target is set, one elsewhere."""
    for name, settings in best.items():
        for scenario in MAIN:
            yield from (Row(scenario, name, seed, json.dumps(settings)) for seed in SEEDS)
    for name, settings in best.items():
        for scenario in OTHERS:
            yield Row(scenario, name, SEEDS[0], json.dumps(settings))


if __name__ == "__main__":
    main()
