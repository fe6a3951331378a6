"""What lasts: requests of every size, requests one after another, and training afterwards.

    python -m benchmarks.lasting --size cpu --seeds 0 1 2

Forget sets are random; nothing was tuned on them (`benchmarks/quality/scenarios.py`, `dev`, are
others). Prints the tables, and writes lasting-<size>.json, .md and .png to benchmarks/results.
Models and finished rows are cached, so an interrupted run continues there; `--parts` and `--seeds`
add to what is there. Accuracies and AUCs are in percent.
"""

import argparse
import hashlib
import json
import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks import lasting_report
from benchmarks.quality import measure
from benchmarks.quality.measure import COMPARED, Sets, audited
from benchmarks.quality.prepare import ORACLE_SEED, SIZES, Bench, Place
from benchmarks.quality.rows import (
    ESCALATION,
    OURS,
    OURS_WITH,
    Row,
    batches,
    retraining_seconds,
    unlearnt,
)
from benchmarks.quality.scenarios import Scenario, choose
from worker.unlearning.evaluation import Outputs, accuracy, membership_auc
from worker.unlearning.network import Network
from worker.unlearning.phases import MOMENTUM, take_step
from worker.unlearning.samples import Samples
from worker.unlearning.sgd import SGD

ROOT = Path(__file__).parents[1]
REQUESTED, MOST = 1000, 2000
"""Samples of the sequences and of the joint request; the most that are forgotten at once."""

COUNTS = (1, 5, 10, 20, 50, 100, 200, 400, 1000, 2000)
ONE_BASE = "20 x 50, one base"
"""Each job starts again from the original, and forgets all that was asked so far."""

SEQUENCES = {"20 x 50": (20, 1), "100 x 10": (100, 5), "200 x 5": (200, 10), ONE_BASE: (20, 1)}
"""Requests, and after how many of them everything is measured."""

RECOVERIES, RECOVERED, RECOVER_LR, BATCH = 6, 7200, 0.04, 128
"""Recoveries with true labels after a job; retain samples of each, which are those of both cycles
of a job before own answers were rehearsed; highest rate and batch size, as in such a job."""

SHOWN = 2500
"""Retain samples that are measured."""

PARTS = ("sizes", "relearning", *SEQUENCES)


@dataclass(frozen=True, slots=True)
class Task:
    """One row: a part, with one original."""

    part: str
    method: str
    seed: int
    oracles: int = 2

    def path(self, place: Place) -> Path:
        """Its cache file, under the source it depends on."""
        digest = hashlib.sha256(json.dumps(asdict(self)).encode())
        digest.update(measure.source(judging=False).encode() + Path(__file__).read_bytes())
        return place.cache / "lasting" / f"{digest.hexdigest()[:20]}.json"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--size", choices=sorted(SIZES), default="cpu")
    options.add_argument("--data", type=Path, default=ROOT / "../shared/data")
    options.add_argument("--cache", type=Path, help="default: .cache/quality-<size>")
    options.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    options.add_argument("--methods", nargs="+", choices=(OURS, OURS_WITH), default=[OURS])
    options.add_argument(
        "--oracles", type=int, default=2, help="retrained models; 0 for a quick look without"
    )
    options.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    given = options.parse_args()
    torch.set_num_threads(1)
    cache = given.cache or ROOT / ".cache" / f"quality-{given.size}"
    place = Place(given.data, cache, SIZES[given.size])
    results = ROOT / "benchmarks/results"
    path = results / f"lasting-{given.size}.json"
    tasks = [
        Task(part, method, seed, given.oracles)
        for part in given.parts
        for method in given.methods
        for seed in given.seeds
    ]
    asked = [performed(task, place) for task in tasks]
    kept = json.loads(path.read_text())["rows"] if path.exists() else []
    found = {"size": given.size, "rows": merged(kept, asked)}
    measure.save(path, found)
    text = lasting_report.tables(found)
    path.with_suffix(".md").write_text(text)
    lasting_report.plot(found, path.with_suffix(".png"))
    print(text)


def merged(kept: Sequence[dict[str, Any]], made: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every row once: those made now replace those kept."""
    rows = {(row["part"], row["method"], row["seed"]): row for row in (*kept, *made)}
    return [rows[key] for key in sorted(rows)]


def performed(task: Task, place: Place) -> dict[str, Any]:
    """The finished row, from the cache or made now."""
    path = task.path(place)
    if not path.exists():
        bench = Bench.open(place)
        if task.part == "sizes":
            made = sizes(bench, task)
        elif task.part == "relearning":
            made = relearning(bench, task)
        else:
            made = sequence(bench, task)
        measure.save(path, asdict(task) | made)
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def requested(bench: Bench, count: int) -> Tensor:
    """(N,) bool: random samples to forget; those of a smaller count are among those of a larger.

    A thousand are those of "random 10 %" in `benchmarks.quality`, and so are the retrained models.
    At most a fifth of the training samples, of `REQUESTED` at most a tenth.
    """
    share = 10 if count <= REQUESTED else 5
    return choose(~bench.canaries, min(count, len(bench.canaries) // share), seed=0)


def oracles(bench: Bench, count: int, number: int) -> list[Network]:
    """So many models retrained without `requested(count)`, or without more."""
    without = requested(bench, REQUESTED if count <= REQUESTED else MOST)
    return [bench.trained(~without, ORACLE_SEED + each) for each in range(number)]


@dataclass(frozen=True, slots=True)
class Figures:
    """What is measured of a network: on some forgotten samples, and on what every one is."""

    unseen: Outputs
    kept: Outputs
    network: Network
    data: Samples

    @classmethod
    def of(cls, bench: Bench, network: Network, kept: Tensor, *, quick: bool = False) -> "Figures":
        """Of retain samples (N,), some are measured; the unseen ones are those no method is given:
        the audit half of the hold-out and, if there is time, the test split."""
        holdout = bench.data.holdout.select(audited(bench.data.holdout))
        unseen = Outputs.of(network, holdout, 500)
        if not quick:
            unseen = unseen.joined(Outputs.of(network, bench.data.test, 500))
        few = bench.data.train.select(choose(kept, SHOWN, seed=0))
        return cls(unseen, Outputs.of(network, few, 500), network, bench.data.train)

    def on(self, forgotten: Tensor) -> dict[str, float]:
        """Figures as in `measure.COMPARED`, for these samples (N,) bool."""
        mine = Outputs.of(self.network, self.data.select(forgotten), 500)
        auc = membership_auc(mine, self.unseen)
        shares = (accuracy(mine), accuracy(self.kept), accuracy(self.unseen), auc)
        return {name: 100 * (share or 0.0) for name, share in zip(COMPARED, shares, strict=True)}

    def auc(self, forgotten: Tensor) -> float | None:
        """Membership AUC of these samples; None of none."""
        return self.on(forgotten)["mia_auc"] if forgotten.any() else None


def compared(mine: dict[str, float], others: Sequence[dict[str, float]]) -> dict[str, float]:
    """The figures with their mean distance from those of retrained models, in points, if any."""
    if not others:
        return mine
    mean = {name: statistics.mean(other[name] for other in others) for name in COMPARED}
    away = {f"gap_{name}": mine[name] - mean[name] for name in COMPARED}
    return mine | away | {"avg_gap": statistics.mean(abs(value) for value in away.values())}


def sizes(bench: Bench, task: Task) -> dict[str, Any]:
    """Requests of every size, each of the original."""
    every = requested(bench, MOST)
    original = bench.original(task.seed)
    retrained = {
        most: [Figures.of(bench, each, ~every) for each in oracles(bench, most, task.oracles)]
        for most in (REQUESTED, MOST)
    }
    retrain_seconds = retraining_seconds(bench, Sets.of(bench, every))
    rows = []
    for count in COUNTS:
        forgotten = requested(bench, count)
        scenario = Scenario(f"random {count}", False, forgotten, 2, every)
        network, seconds = unlearnt(bench, scenario, original, forgotten, _row(task))
        theirs = [each.on(forgotten) for each in retrained[max(count, REQUESTED)]]
        mine = compared(Figures.of(bench, network, ~every).on(forgotten), theirs)
        rows.append(
            {"count": int(forgotten.sum()), **mine, "retrained": theirs}
            | {"seconds": seconds, "time_ratio": seconds / retrain_seconds}
        )
        print(task.part, task.method, task.seed, rows[-1], flush=True)
    before = Figures.of(bench, original, ~every).on(every)
    return {"rows": rows, "original": before, "retrain_seconds": retrain_seconds}


def sequence(bench: Bench, task: Task) -> dict[str, Any]:
    """Requests one after another, each of what the last one left."""
    count, every = SEQUENCES[task.part]
    forgotten = requested(bench, REQUESTED)
    scenario = Scenario("sequence", False, forgotten, 2, forgotten, count)
    sets = Sets.of(bench, forgotten)
    theirs = [
        Figures.of(bench, each, ~forgotten).on(forgotten)
        for each in oracles(bench, REQUESTED, task.oracles)
    ]
    retraining = [retraining_seconds(bench, sets)]
    original = network = bench.original(task.seed)
    spent, curve = 0.0, []
    for number, batch in enumerate(batches(scenario), start=1):
        now = replace(scenario, forgotten=batch.upto)
        base, new = (original, batch.upto) if task.part == ONE_BASE else (network, batch.new)
        network, seconds = unlearnt(bench, now, base, new, _row(task))
        spent += seconds
        if number % every and number != count:
            continue
        seen = Figures.of(bench, network, ~forgotten, quick=True)
        curve.append(
            {"requests": number, "new_auc": seen.auc(batch.new), **seen.on(batch.upto)}
            | {"older_auc": seen.auc(batch.upto & ~batch.new), "seconds": spent}
        )
        print(task.part, task.method, task.seed, curve[-1], flush=True)
    retraining.append(retraining_seconds(bench, sets))
    retrain_seconds = statistics.mean(retraining)
    older = [point["older_auc"] for point in curve if point["older_auc"] is not None]
    return {
        "curve": curve,
        "retrained": theirs,
        "final": compared(Figures.of(bench, network, ~forgotten).on(forgotten), theirs),
        "worst_older_auc": max(older, default=None),
        "seconds": spent,
        "retrain_seconds": retrain_seconds,
        "time_ratio": spent / retrain_seconds,
    }


def relearning(bench: Bench, task: Task) -> dict[str, Any]:
    """Training on retain samples with their true labels, after a joint request: of what each round
    of a job leaves, and of a retrained model."""
    forgotten = requested(bench, REQUESTED)
    scenario = Scenario("joint", False, forgotten, 2, forgotten)
    starts = {
        name: unlearnt(bench, scenario, bench.original(task.seed), forgotten, _row(task, **change))
        for name, change in ESCALATION.items()
    }
    if task.oracles:
        [retrained] = oracles(bench, REQUESTED, 1)
        starts["retrained"] = retrained, retraining_seconds(bench, Sets.of(bench, forgotten))
    found: dict[str, Any] = {"seconds": {name: seconds for name, (_, seconds) in starts.items()}}
    for name, (start, _) in starts.items():
        found[name] = []
        for number, after in enumerate(recovered(bench, start, ~forgotten, task.seed)):
            row = {"recoveries": number, **Figures.of(bench, after, ~forgotten).on(forgotten)}
            found[name].append(row)
            print(task.part, task.method, task.seed, name, row, flush=True)
        found[f"{name}_rise"] = found[name][-1]["mia_auc"] - found[name][0]["mia_auc"]
    return found


def recovered(bench: Bench, network: Network, kept: Tensor, seed: int) -> Iterator[Network]:
    """The network, and copies of it after one to `RECOVERIES` recoveries with true labels."""
    retain = bench.data.train.select(kept)
    generator = torch.Generator().manual_seed(seed)
    after = network.copy()
    yield after
    for _ in range(RECOVERIES):
        after = after.copy()
        after.freeze_leading(0.1)
        after.train()
        optimizer = SGD(after.model.parameters(), RECOVER_LR, momentum=MOMENTUM)
        order = torch.randperm(len(retain), generator=generator)[:RECOVERED]
        steps = order.tensor_split(-(-len(order) // BATCH))
        for step, chosen in enumerate(steps):
            optimizer.lr = RECOVER_LR * (1 + math.cos(math.pi * step / len(steps))) / 2
            _, logits = after(retain.inputs[chosen])
            labels = retain.labels[chosen].to(logits.device)
            take_step(after, optimizer, F.cross_entropy(logits, labels))
        after.model.eval()
        yield after


def _row(task: Task, **settings: Any) -> Row:
    return Row(task.part, task.method, task.seed, json.dumps(settings))


if __name__ == "__main__":
    main()
