"""How close unlearning comes to retraining, compared with other methods: one resumable command.

`make bench-quality SIZE=cpu|gpu` prints the tables and writes quality-<size>.json, .md and .png to
benchmarks/results. Models and finished rows are cached, so an interrupted run continues there.
"""

import argparse
import json
import statistics
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from benchmarks.quality import calibration, methods, prepare, report
from benchmarks.quality.measure import save
from benchmarks.quality.prepare import DEV_SEED, SEEDS, SIZES, Bench, Place
from benchmarks.quality.rows import ESCALATION, OURS, OURS_WITH, Row, kept, oracle_rows, perform

ROOT = Path(__file__).parents[2]
MAIN = ("random 10 %", "class")
OTHERS = (
    "part of a class", "memorised", "canaries", "random 100", "random 10", "random 1",
)  # fmt: skip
JUDGED = OTHERS[:3]
"""Forget sets that are unlike the hold-out."""

SEQUENCE = "sequence"
DEV = ("dev random", "dev class", "dev part", "dev memorised", "dev 100")
"""Forget sets on which everything was tuned; baselines and the amount of work on the first two."""
TUNED = 8
"""Settings tried per baseline: the first of its `SEARCH`, including its paper's."""

ABLATIONS: dict[str, dict[str, Any]] = {
    "the method": {},
    "without alignment": {"alignment_weight": 0.0},
    "without distillation": {"distillation_weight": 0.0},
    "without the shift": {"push": 0.0, "push_rate": 0.0},
    "true labels rehearsed": {"label_share": 1.0},
    "own answers alone rehearsed": {"label_share": 0.0},
    "forget samples not held": {"hold_weight": 0.0},
    "without overshoot": {"overshoot": 0.0},
    "companions not rehearsed": {"retain_weight": 0.0},
    "without recovery": {"recover_least": 2, "recover_most": 2},
    "without annealing": {"anneal": False},
    "without sharpening": {"sharpen": False},
    "without membership loss": {"membership_weight": 0.0},
    "no more companions for a skewed forget set": {"forget_batch": 64},
    "all layers move": {"frozen_share": 0.0},
}
"""Ablations: the fields of `Config` that remove one part."""

TARGETS: dict[str, dict[str, Any]] = {
    "both": {}, "calibrated only": {"early_share": 0.0}, "early layer only": {"early_share": 1.0},
}  # fmt: skip
"""The same for the targets without out-of-sample predictions."""

BUDGETS: dict[str, dict[str, Any]] = {
    "1 cycle": {"cycles": 1},
    "2 forget epochs": {"forget_epochs": 2},
    "2,000 recover samples": {"recover_least": 2000, "recover_most": 2000},
    "2 cycles": {},
    "8,000 recover samples": {"recover_least": 8000, "recover_most": 8000},
    "3 cycles": {"cycles": 3},
    "4 cycles": {"cycles": 4},
}
"""The effect of more or less work: the way to the knee."""


def main() -> None:
    """Prepare, tune, run, calibrate, report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=sorted(SIZES), default="cpu")
    parser.add_argument("--data", type=Path, default=ROOT / "../shared/data")
    parser.add_argument("--cache", type=Path, help="default: .cache/quality-<size>")
    parser.add_argument(
        "--workers", type=int, default=2, help="processes of one thread each; 1 on a GPU"
    )
    parser.add_argument("--report", action="store_true", help="report from the cache only")
    parser.add_argument(
        "--tuned",
        action="store_true",
        help="take the baselines' settings from the last result instead of tuning again",
    )
    parser.add_argument(
        "--ours",
        action="store_true",
        help="make our rows anew, and keep the rest of the last result",
    )
    options = parser.parse_args()
    cache = options.cache or ROOT / ".cache" / f"quality-{options.size}"
    place = Place(options.data, cache, SIZES[options.size])
    results = ROOT / "benchmarks/results"
    path = results / f"quality-{options.size}.json"
    workers = 0 if options.report else options.workers
    last = json.loads(path.read_text()) if options.tuned or options.ours else {}
    if options.ours:
        found = last | renewed(place, workers, last["rows"])
    else:
        found = measured(place, workers, last.get("settings"))
    save(path, found)
    text = report.tables(found)
    (results / f"quality-{options.size}.md").write_text(text)
    report.plot(found, results / f"quality-{options.size}.png")
    print(text)


def measured(place: Place, workers: int, tuned: dict[str, Any] | None = None) -> dict[str, Any]:
    """Everything the report shows; without workers, only what is cached.

    Args:
        tuned: settings of the baselines, by name; those missing are tuned here.
    """
    if workers:
        prepare.prepare(place, workers)
    run = Runner(place, workers)
    ours = run.rows(our_rows())
    best = tuned or chosen_settings(run.rows(tuning_rows()))
    theirs = run.rows(baseline_rows(best))
    cases = calibration.cases(place, workers)
    bench = Bench.open(place)
    every = bench.scenarios()
    compared = dict.fromkeys(row["scenario"] for row in (*ours, *theirs))
    oracles = [row for name in compared for row in oracle_rows(bench, every[name])]
    return {
        "size": place.size.name,
        "tuning": f"{TUNED} settings for each baseline on the dev scenarios, by average gap"
        + (", in an earlier run" if tuned else ""),
        "settings": best,
        "rows": [*oracles, *ours, *theirs],
        **varied(run),
        "calibration": calibration.summary(cases),
        "cases": cases,
    }


def renewed(place: Place, workers: int, last: list[dict[str, Any]]) -> dict[str, Any]:
    """What depends on our method; the rows of other methods are those of `last`."""
    if workers:
        prepare.prepare(place, workers)
    run = Runner(place, workers)
    others = [row for row in last if row["method"] not in (OURS, OURS_WITH)]
    return {"rows": [*others, *run.rows(our_rows())], **varied(run)}


def varied(run: "Runner") -> dict[str, Any]:
    """Our method with parts removed, with more or less work, and in the later rounds of a job."""
    ablations, answers, budgets = (
        {
            name: run.rows(variant_rows(method, change, scenarios))
            for name, change in changes.items()
        }
        for method, changes, scenarios in (
            (OURS_WITH, ABLATIONS, DEV[:3]),
            (OURS, TARGETS, DEV),
            (OURS_WITH, BUDGETS, DEV[:2]),
        )
    )
    return {
        "ablations": ablations,
        "targets": answers,
        "budgets": budgets,
        "escalated": escalated(run),
    }


def escalated(run: "Runner") -> dict[str, list[dict[str, Any]]]:
    """The rounds of jobs: each begins with the first, and goes on while the verdict is `fail`."""
    going = {OURS_WITH: [*judged_rows()], OURS: [*main_rows(OURS)]}
    found: dict[str, list[dict[str, Any]]] = {}
    for name, change in ESCALATION.items():
        for method, wanted in going.items():
            rows = [replace(row, settings=json.dumps(change)) for row in wanted]
            made = run.rows(rows)
            found[f"{method}, {name}"] = made
            failed = {
                (each["scenario"], each["seed"]) for each in made if each["verdict"] == "fail"
            }
            going[method] = [row for row in wanted if (row.scenario, row.seed) in failed]
    return found


class Runner:
    """Makes rows in separate processes, several at a time, or reads finished ones."""

    def __init__(self, place: Place, workers: int) -> None:
        self._place, self._workers = place, workers

    def rows(self, wanted: Iterable[Row]) -> list[dict[str, Any]]:
        """The rows, in the order given; without workers, only the cached ones."""
        wanted = list(wanted)
        made = {row: found for row in wanted if (found := kept(row, self._place))}
        left = [row for row in wanted if row not in made]
        if self._workers and left:
            with ProcessPoolExecutor(
                self._workers, mp_context=get_context("spawn"), max_tasks_per_child=1
            ) as pool:
                waiting = {pool.submit(perform, row, self._place): row for row in left}
                for done in as_completed(waiting):
                    made[waiting[done]] = found = done.result()
                    print(
                        f"{found['scenario']:16} {found['method']:24} seed {found['seed']}  "
                        f"gap {found['avg_gap']:5.2f}  KL {found['kl_oracle']:.2f}  "
                        f"time {found['time_ratio']:.2f}  {found['verdict']}",
                        flush=True,
                    )
        return [made[row] for row in wanted if row in made]


def our_rows() -> Iterator[Row]:
    """Both our variants on everything: three seeds where a target is set, one elsewhere."""
    yield from judged_rows()
    yield from main_rows(OURS)
    for scenario in (*OTHERS, SEQUENCE):
        methods = (OURS,) if scenario in JUDGED else (OURS_WITH, OURS)
        yield from (Row(scenario, method, SEEDS[0]) for method in methods)


def judged_rows() -> Iterator[Row]:
    """Ours with reference models, where the verdicts of the first round are counted."""
    for scenario in (*MAIN, *JUDGED):
        yield from (Row(scenario, OURS_WITH, seed) for seed in SEEDS)


def main_rows(method: str, settings: str = "{}") -> Iterator[Row]:
    """A method where a target is set."""
    for scenario in MAIN:
        yield from (Row(scenario, method, seed, settings) for seed in SEEDS)


def variant_rows(method: str, change: dict[str, Any], scenarios: Sequence[str]) -> Iterator[Row]:
    """Our method, modified, on the sets it was tuned on."""
    for scenario in scenarios:
        yield Row(scenario, method, DEV_SEED, json.dumps(change))


def tuning_rows() -> Iterator[Row]:
    """Every baseline with each of its settings to try."""
    for name, method in methods.METHODS.items():
        for settings in method.SEARCH[:TUNED]:
            for scenario in DEV[:2]:
                yield Row(scenario, name, DEV_SEED, json.dumps(settings))


def chosen_settings(tried: list[dict[str, Any]]) -> dict[str, Any]:
    """The settings of each method with the lowest average gap, over the two dev scenarios."""
    best: dict[str, Any] = {}
    for name in methods.METHODS:
        gaps: dict[str, list[float]] = {}
        for row in tried:
            if row["method"] == name:
                gaps.setdefault(json.dumps(row["settings"]), []).append(row["avg_gap"])
        if gaps:
            best[name] = json.loads(min(gaps, key=lambda settings: statistics.mean(gaps[settings])))
    return best


def baseline_rows(best: dict[str, Any]) -> Iterator[Row]:
    """Every tuned baseline: three seeds where a target is set, one elsewhere."""
    for name, settings in best.items():
        yield from main_rows(name, json.dumps(settings))
    for name, settings in best.items():
        for scenario in OTHERS:
            yield Row(scenario, name, SEEDS[0], json.dumps(settings))


if __name__ == "__main__":
    main()
