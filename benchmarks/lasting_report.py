"""The tables and the picture of `benchmarks.lasting`."""

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("agg")

from matplotlib import pyplot as plt

Rows = list[dict[str, Any]]


def tables(found: dict[str, Any]) -> str:
    """The whole report in Markdown; medians over the seeds."""
    parts = [
        "Accuracies, AUCs and the distances between them in percent or points; *time* as a share "
        "of retraining. Medians over the seeds, in brackets the range where there are several.\n"
    ]
    for part, mine in _by(found["rows"], "part").items():
        make = {"sizes": _sizes, "relearning": _relearning}.get(part, _sequence)
        parts.append(f"\n### {part}\n")
        parts += [f"\n{method}\n\n{make(rows)}" for method, rows in _by(mine, "method").items()]
    return "\n".join(parts) + "\n"


def _sizes(rows: Rows) -> str:
    lines = [
        "| n | AUC | retrained | forget | retrained | retain | test | time |",
        "|---" * 8 + "|",
    ]
    for place, first in enumerate(rows[0]["rows"]):
        mine = [row["rows"][place] for row in rows]
        cells = [
            str(first["count"]),
            _told(mine, "mia_auc"),
            _told(first["retrained"], "mia_auc"),
            _told(mine, "forget_acc"),
            _told(first["retrained"], "forget_acc"),
            _told(mine, "retain_acc"),
            _told(mine, "test_acc"),
            _told(mine, "time_ratio", "{:.3f}"),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _sequence(rows: Rows) -> str:
    finals = [row["final"] | row for row in rows]
    theirs = [each for row in rows for each in row["retrained"]]
    lines = [
        "| | forget | retain | test | AUC | older sets, worst | average gap | test, gap | time |",
        "|---" * 9 + "|",
        "| retrained | "
        + " | ".join(
            _told(theirs, key) for key in ("forget_acc", "retain_acc", "test_acc", "mia_auc")
        )
        + " | | | | 1 |",
    ]
    keys = ("forget_acc", "retain_acc", "test_acc", "mia_auc", "worst_older_auc")
    cells = [_told(finals, key) for key in keys]
    cells += [_told(finals, key, "{:.2f}") for key in ("avg_gap", "gap_test_acc", "time_ratio")]
    return "\n".join([*lines, "| Lethe | " + " | ".join(cells) + " |"])


def _relearning(rows: Rows) -> str:
    """Membership AUC by the number of recoveries, of each round of a job and of retraining."""
    kinds = [name for name, found in rows[0].items() if isinstance(found, list)]
    lines = ["| recoveries | " + " | ".join(kinds) + " |", "|---" * (len(kinds) + 1) + "|"]
    for place in range(len(rows[0][kinds[0]])):
        cells = [_told([row[kind][place] for row in rows], "mia_auc") for kind in kinds]
        lines.append(f"| {place} | " + " | ".join(cells) + " |")
    for title, key, form in (
        ("test accuracy at first", "test_acc", "{:.1f}"),
        ("retain accuracy at first", "retain_acc", "{:.1f}"),
    ):
        cells = [_told([row[kind][0] for row in rows], key, form) for kind in kinds]
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    cells = [_told([row["seconds"] for row in rows], kind, "{:.0f}") for kind in kinds]
    return "\n".join([*lines, "| seconds | " + " | ".join(cells) + " |"])


def plot(found: dict[str, Any], path: Path) -> None:
    """Older sets over time, AUC and time by size, and what comes back with true labels."""
    figure, panels = plt.subplots(1, 4, figsize=(19, 4.5))
    older, by_size, cost, relearnt = panels
    for row in found["rows"]:
        name = f"{row['part']}, {row['method']}, seed {row['seed']}"
        if row["part"] == "sizes":
            counts = [each["count"] for each in row["rows"]]
            _line(by_size, counts, [each["mia_auc"] for each in row["rows"]], name)
            _line(cost, counts, [each["time_ratio"] for each in row["rows"]], name)
            theirs = [[each["mia_auc"] for each in at["retrained"]] for at in row["rows"]]
            if all(theirs):
                low, high = list(map(min, theirs)), list(map(max, theirs))
                by_size.fill_between(counts, low, high, color="grey", alpha=0.15)
        elif row["part"] == "relearning":
            for kind in (name for name, found in row.items() if isinstance(found, list)):
                points = [(each["recoveries"], each["mia_auc"]) for each in row[kind]]
                across, up = zip(*points, strict=True)
                _line(relearnt, across, up, f"{kind}, seed {row['seed']}")
        else:
            points = [
                (each["requests"] / row["curve"][-1]["requests"], each["older_auc"])
                for each in row["curve"]
                if each["older_auc"] is not None
            ]
            across, up = zip(*points, strict=True)
            _line(older, across, up, name)
    for panel, title, x, y in (
        (older, "sets of earlier requests", "share of the sequence", "membership AUC"),
        (by_size, "requests of every size", "samples", "membership AUC"),
        (cost, "requests of every size", "samples", "time / retraining"),
        (relearnt, "training afterwards, true labels", "recoveries", "membership AUC"),
    ):
        panel.set(title=title, xlabel=x, ylabel=y)
        if panel.has_data():
            panel.legend(fontsize=7)
    by_size.set_xscale("log")
    cost.set_xscale("log")
    figure.tight_layout()
    figure.savefig(path, dpi=120, metadata={"Software": None})
    plt.close(figure)


def _line(panel: Any, x: Sequence[float], y: Sequence[float], name: str) -> None:
    panel.plot(x, y, "o-", markersize=3, label=name)


def _told(rows: Rows, key: str, form: str = "{:.1f}") -> str:
    values = [row[key] for row in rows if row.get(key) is not None]
    if not values:
        return ""
    show: Callable[[float], str] = form.format
    told = show(statistics.median(values))
    if len(values) > 1:
        told += f" ({show(min(values))} to {show(max(values))})"
    return told


def _by(rows: Rows, key: str) -> dict[str, Rows]:
    found: dict[str, Rows] = {}
    for row in rows:
        found.setdefault(row[key], []).append(row)
    return found
