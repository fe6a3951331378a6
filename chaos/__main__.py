"""`python -m chaos --schedules N --seed S`: run N schedules, say what broke and how to replay it.

Schedule n has the seed S + n, so `python -m chaos --schedules 1 --seed SEED` replays a failing seed
alone. Writes benchmarks/results/chaos.json.
"""

import argparse
import json
import os
import shutil
import signal
import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from chaos import stack
from chaos.checker.violation import DOUBLED, LOST
from chaos.play import Played
from chaos.run import run

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"


def main() -> int:
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # ends what was started
    state = options.state or Path(tempfile.mkdtemp(prefix="lethe-chaos-"))
    schedules = run(
        range(options.seed, options.seed + options.schedules),
        state,
        {} if options.lease_default else stack.QUICK,
        stacks=options.stacks,
    )
    report = summary(schedules, options.lease_default) | {"stacks_at_once": options.stacks}
    if options.result:
        options.result.write_text(json.dumps(report, indent=1) + "\n")
    print(table(report))
    broken = [each for each in schedules if each.violations]
    if broken:
        print(f"\nLogs, database and store: {state}")
    elif options.state is None:
        shutil.rmtree(state, ignore_errors=True)
    print(last_line(report), flush=True)
    return 1 if broken else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m chaos", description=__doc__)
    parser.add_argument("--schedules", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--stacks", type=int, default=1, help=("stacks at a time; they share the schedules")
    )
    parser.add_argument("--state", type=Path, help="empty folder for logs, database and store")
    parser.add_argument("--result", type=Path, help="file for the JSON report")
    parser.add_argument(
        "--lease-default",
        action="store_true",
        help="with the lease, heartbeat and sweep of production: 45, 15 and 5 seconds",
    )
    return parser.parse_args()


def summary(schedules: Sequence[Played], lease_default: bool) -> dict[str, Any]:
    """The settings of the run, and its results."""
    kinds = Counter(fault.kind.value for each in schedules for fault in each.schedule.faults)
    rules = Counter(found.rule for each in schedules for found in each.violations)
    recovered = [each for played in schedules for each in played.recoveries]
    seconds = [each.seconds for each in recovered if each.seconds is not None]
    return {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "cores": os.cpu_count(),
        "lease": "45 s" if lease_default else "4 s",
        "seeds": [schedules[0].schedule.seed, schedules[-1].schedule.seed],
        "schedules": len(schedules),
        "seconds": round(sum(each.seconds for each in schedules)),
        "faults": kinds.total(),
        "faults_by_kind": dict(sorted(kinds.items())),
        "requests_accepted": sum(each.accepted for each in schedules),
        "posts_sent": sum(each.posts for each in schedules),
        "versions_and_states_registered": sum(each.offered for each in schedules),
        "of_these_taken": sum(each.taken for each in schedules),
        "lost": sum(rules[rule] for rule in LOST),
        "doubled": sum(rules[rule] for rule in DOUBLED),
        "violations": dict(sorted(rules.items())),
        "failing_seeds": [each.schedule.seed for each in schedules if each.violations],
        "recoveries": len(recovered),
        "median_recovery_s": round(statistics.median(seconds), 1) if seconds else None,
        "worst_recovery_s": round(max(seconds), 1) if seconds else None,
        "recoveries_by_kind": _by_kind(schedules),
    }


def _by_kind(schedules: Sequence[Played]) -> dict[str, dict[str, float]]:
    seconds: dict[str, list[float]] = {}
    for played in schedules:
        for each in played.recoveries:
            if each.seconds is not None:
                seconds.setdefault(each.death.kind, []).append(each.seconds)
    return {
        kind: {
            "count": len(values),
            "median_s": round(statistics.median(values), 1),
            "worst_s": round(max(values), 1),
        }
        for kind, values in sorted(seconds.items())
    }


def table(report: dict[str, Any]) -> str:
    """Faults and recoveries by kind, in Markdown."""
    lines = ["", "| fault | injected | met a job | median recovery s | worst |"]
    lines.append("|---|---|---|---|---|")
    for kind, injected in report["faults_by_kind"].items():
        found = report["recoveries_by_kind"].get(kind)
        met = f"{found['count']} | {found['median_s']} | {found['worst_s']}" if found else "| |"
        lines.append(f"| {kind} | {injected} | {met} |")
    lines.append(
        f"\n{report['requests_accepted']} requests accepted in {report['posts_sent']} POSTs, "
        f"{report['seconds']} s; {report['versions_and_states_registered']} versions and states "
        f"registered, {report['of_these_taken']} taken; {report['recoveries']} jobs lost their "
        f"worker, median recovery {report['median_recovery_s']} s; violations: "
        f"{report['violations'] or 'none'}"
    )
    return "\n".join(lines)


def last_line(report: dict[str, Any]) -> str:
    return (
        f"chaos: schedules={report['schedules']} faults={report['faults']} "
        f"accepted={report['requests_accepted']} lost={report['lost']} "
        f"doubled={report['doubled']} worst_recovery_s={report['worst_recovery_s'] or 0}"
    )


if __name__ == "__main__":
    sys.exit(main())
