"""Requests that name people: the audit's verdicts on the original, retrained and changed models.

`make bench-persons` prints the tables and writes benchmarks/results/persons.json. Networks and
finished requests are cached, so an interrupted run continues there.
"""

import argparse
import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from functools import cache
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

import benchmarks.persons
import worker.unlearning
from benchmarks.persons.data import SETS
from benchmarks.persons.measure import LEVELS, Request, verdict
from benchmarks.persons.prepare import Fold

ROOT = Path(__file__).parents[2]
RETRAINED, REFERENCES = 2, 8
Row = dict[str, Any]


def main() -> None:
    """Train, unlearn, audit, report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, default=ROOT / ".cache/persons")
    parser.add_argument("--folds", type=int, default=1, help="ways to divide the groups")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = [
        row
        for name in SETS
        for number in range(options.folds)
        for row in _rows(Fold(name, number, REFERENCES, options.cache))
    ]
    found = {"summary": [*summaries(rows)], "rows": rows}
    path = ROOT / "benchmarks/results/persons.json"
    path.write_text(json.dumps(found, indent=1) + "\n")
    print(table(found["summary"]))


def _rows(fold: Fold) -> Iterator[Row]:
    for name, forgotten in fold.requests.items():
        for references in (True, False):
            yield _cached(Request(fold, forgotten), name, references)


def _cached(request: Request, name: str, references: bool) -> Row:
    fold = request.fold
    place = f"{fold.name}-{fold.number}-{name.replace(' ', '-')}-{references}-{_code()}.json"
    path = fold.cache / "rows" / place
    if not path.exists():
        row = _row(request, name, references)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(row))
        print(f"{fold.name:8} {name:28} references {references!s:6}", *row["verdicts"], flush=True)
    found: Row = json.loads(path.read_text())
    return found


@cache
def _code() -> str:
    """A digest of all code that a row rests on."""
    found = hashlib.sha256()
    for package in (worker.unlearning, benchmarks.persons):
        for file in sorted(Path(package.__path__[0]).rglob("*.py")):
            found.update(file.read_bytes())
    return found.hexdigest()[:12]


def _row(request: Request, name: str, references: bool) -> Row:
    retrained = [request.fold.oracle(request.forgotten, n) for n in range(RETRAINED)]
    original = request.judged(request.fold.original, references=references)
    exact = [request.judged(network, references=references) for network in retrained]
    unaware = [
        request.judged(network, references=references, unaware=True)
        for network in retrained
        if request.in_part
    ]
    rounds = []
    for level in LEVELS:
        network = request.unlearned(level, references=references)
        judged = request.judged(network, references=references)
        rounds.append((verdict(judged), request.test_accuracy(network), judged.reason))
        if not judged.fails:
            break
    else:
        rounds.append((verdict(exact[0]), request.test_accuracy(retrained[0]), exact[0].reason))
    return {
        "set": request.fold.name,
        "fold": request.fold.number,
        "request": name,
        "people": len(request.groups.forget.unique()),  # type: ignore[no-untyped-call]  # torch
        "samples": int(request.forgotten.sum()),
        "in_part": request.in_part,
        "references": references,
        "verdicts": [verdict(original), *map(verdict, exact), "|", *(each[0] for each in rounds)],
        "original": verdict(original),
        "retrained": [verdict(each) for each in exact],
        "retrained_unaware": [verdict(each) for each in unaware],
        "rounds": [each[0] for each in rounds],
        "final": rounds[-1][0],
        "by_retraining": len(rounds) > len(LEVELS),
        "test_accuracy": rounds[-1][1],
        "retrained_test_accuracy": fmean(map(request.test_accuracy, retrained)),
        "reasons": {
            "original": original.reason,
            "retrained": [each.reason for each in exact],
            "rounds": [each[2] for each in rounds],
        },
    }


def summaries(rows: list[Row]) -> Iterator[Row]:
    """The figures of each data set: of requests for whole people and of others, with reference
    models and without."""
    for in_part, references in product((False, True), (True, False)):
        for name in (*SETS, "all"):
            here = [
                row
                for row in rows
                if row["references"] is references
                and row["in_part"] is in_part
                and name in (row["set"], "all")
            ]
            yield {
                "set": name,
                "in_part": in_part,
                "references": references,
                "requests": len(here),
                "original": Counter(row["original"] for row in here),
                "retrained": Counter(each for row in here for each in row["retrained"]),
                "retrained_unaware": Counter(
                    each for row in here for each in row["retrained_unaware"]
                ),
                "first_round": Counter(row["rounds"][0] for row in here),
                "final": Counter(row["final"] for row in here),
                "by_retraining": sum(row["by_retraining"] for row in here),
                "accuracy_lost": fmean(
                    row["retrained_test_accuracy"] - row["test_accuracy"] for row in here
                ),
            }


def table(found: list[Row]) -> str:
    """In Markdown: how many of each verdict."""
    lines = [
        "| data set | reference models | requests | original | retrained | Lethe, first round "
        "| Lethe, in the end (by retraining) | test accuracy under the retrained |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in found:
        names = ("original", "retrained", "retrained_unaware", "first_round", "final")
        counts = {name: _counts(row[name]) for name in names}
        if row["in_part"]:
            counts["retrained"] += f" (unaware: {counts['retrained_unaware']})"
        lines.append(
            f"| {row['set']}{', in part' * row['in_part']} "
            f"| {'8' if row['references'] else 'none'} | {row['requests']} "
            f"| {counts['original']} | {counts['retrained']} | {counts['first_round']} "
            f"| {counts['final']} ({row['by_retraining']}) | {row['accuracy_lost']:+.1f} |"
        )
    return "\n".join(lines)


def _counts(found: dict[str, int]) -> str:
    """The numbers of `pass`, `no_power` and `fail`."""
    return " / ".join(str(found.get(each, 0)) for each in ("pass", "no_power", "fail"))


if __name__ == "__main__":
    main()
