"""The demo's case with many seeds, through the running service: how often does it end in `pass`?

`python -m benchmarks.demo` starts a stack of its own, and for each of 20 seeds writes other
records with other wrong labels, trains another network and has another person's records
forgotten, as `make demo` does. Then it asks for the same as an exact retraining, to see that the
audit's tests pass networks that never saw the records. It prints a table and writes
benchmarks/results/demo.json after each seed.
"""

import argparse
import json
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

from rich.console import Console

from devstack import local
from devstack.demo import case, tour

RESULT = Path(__file__).parent / "results" / "demo.json"
MOMENTS = ("before", "after")

console = Console(highlight=False)


def main() -> None:
    """Run the seeds and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--result", type=Path, default=RESULT)
    options = parser.parse_args()
    runs: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        data = Path(name) / "data"
        with local.stack(Path(name), LETHE_DATA_ROOTS=json.dumps([str(data)])) as home:
            client = local.Client(home)
            with client.http:
                for seed in range(options.seeds):
                    runs.append(one(client, data / str(seed), seed))
                    console.print(line(runs[-1]))
                    options.result.write_text(json.dumps(summary(runs), indent=1) + "\n")


def one(client: local.Client, folder: Path, seed: int) -> dict[str, Any]:
    """A seed's two jobs: as in the demo, and retraining."""
    started = perf_counter()
    files = case.prepare(folder, seed=seed)
    trained_s = perf_counter() - started
    asked = finished(client, files, seed)
    return {
        "seed": seed,
        "training_seconds": round(trained_s, 1),
        "asked": asked,
        "retrained": finished(client, files, seed, exact=True),
    }


def finished(client: local.Client, files: case.Case, seed: int, **more: object) -> dict[str, Any]:
    """The end of one request, on a model of its own."""
    model = tour.register(client, files, seed)[1]["name"]
    request = client.settled(tour.ask(client, model, files, **more), timeout_s=1800)
    job = client.get(f"/v1/jobs/{request['targets'][0]['job_id']}")
    audit = job["audit"]
    return {
        "status": request["status"],
        "verdict": job["verdict"],
        "mode": job["mode"],
        "rounds": len(job["rounds"]),
        "seconds": round(job["duration_seconds"], 1),
        "nothing_done": _passed(audit["before"]),
        "tests": _passed(audit["after"]),
        "p_before": min(test["p_value"] for test in audit["before"]),
        "p_after": min(test["p_value"] for test in audit["after"]),
        "membership_auc": [job[moment]["figures"]["membership_auc"] for moment in MOMENTS],
        "forget_accuracy": [job[moment]["forget_accuracy"] for moment in MOMENTS],
        "job_seed": audit["seed"],
    }


def _passed(tests: list[dict[str, Any]]) -> str:
    """What the family of tests says by itself: the verdict of a retraining does not rest on it."""
    return "pass" if all(test["passed"] for test in tests) else "fail"


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """All runs, and the counts that matter."""
    asked = [run["asked"] for run in runs]
    return {
        "runs": len(runs),
        "completed_with_pass": sum(
            (each["status"], each["verdict"]) == ("completed", "pass") for each in asked
        ),
        "of_these_approximate": sum(
            (each["verdict"], each["mode"]) == ("pass", "approximate") for each in asked
        ),
        "at_the_first_round": sum(
            (each["verdict"], each["rounds"]) == ("pass", 1) for each in asked
        ),
        "nothing_done_would_fail": sum(each["nothing_done"] == "fail" for each in asked),
        "retrained_pass": sum(run["retrained"]["tests"] == "pass" for run in runs),
        "seeds": runs,
    }


def line(run: dict[str, Any]) -> str:
    """One seed, for people."""
    asked, retrained = run["asked"], run["retrained"]
    before, after = asked["membership_auc"]
    return (
        f"seed {run['seed']:>2}: {asked['status']}, {asked['verdict']} ({asked['mode']}, "
        f"{asked['rounds']} rounds, {asked['seconds']:.0f} s), AUC {before:.2f} -> {after:.2f}, "
        f"p {asked['p_before']:.3f} -> {asked['p_after']:.3f}; nothing done: "
        f"{asked['nothing_done']}; retrained: {retrained['tests']}, p {retrained['p_after']:.3f}"
    )


if __name__ == "__main__":
    main()
