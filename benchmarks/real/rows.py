"""One row: one method on one request of one network, timed in processor seconds, and compared with
the retrained networks. Rows are cached under the source of their method."""

import hashlib
import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean
from time import process_time
from typing import Any

import torch
from torch import Tensor

from benchmarks.quality import measure, methods
from benchmarks.quality.measure import Seen
from benchmarks.quality.methods.given import Given
from benchmarks.quality.rows import OURS, Row, configured
from benchmarks.real import prepare
from benchmarks.real.networks import Problem, Request
from worker.unlearning.alignment import Moments
from worker.unlearning.evaluation import accuracy, membership_auc
from worker.unlearning.network import Network
from worker.unlearning.samples import class_balanced
from worker.unlearning.unlearn import unlearn

METHODS = ("do nothing", "fine-tune", "NegGrad+", "L1-sparse", "SCRUB")
BUDGET = 0.25
"""What a baseline may take, as a share of the epochs of a retraining, rounded to whole ones."""

TRIED = 2
"""Settings tried of each baseline: the first of its `SEARCH`, its paper's among them."""

RETRAINED = "retrained"


class Sets(measure.Sets):
    """The same, for any number of classes."""

    __slots__ = ()

    @property
    def class_counts(self) -> Tensor:
        labels = self.data.train.labels
        return labels[self.kept].bincount(minlength=int(labels.max()) + 1)


def sets_of(problem: Problem, request: Request) -> Sets:
    """The samples of a request, as the service would have them."""
    data, kept = problem.data, ~request.forgotten
    places = kept.nonzero().squeeze(1)
    generator = torch.Generator().manual_seed(0)
    chosen = class_balanced(data.train.labels[places], measure.RESERVOIR, generator)
    audited = measure.audited(data.holdout)
    return Sets(data, request.forgotten, kept, places[chosen], audited)


@dataclass(frozen=True, slots=True)
class Bench:
    """A problem and its cache."""

    problem: Problem
    cache: Path

    def row(self, row: Row) -> dict[str, Any]:
        """The finished row, from the cache or made now."""
        key = f"{row.key()} {self.problem.digest} ".encode()
        key += self.problem.requests[row.scenario].forgotten.numpy().tobytes()
        name = f"{self.problem.name}-{hashlib.sha256(key).hexdigest()[:20]}.json"
        path = self.cache / "rows" / name
        if not path.exists():
            measure.save(path, self._made(row))
        found: dict[str, Any] = json.loads(path.read_text())
        return found

    def retrained(self, name: str) -> list[dict[str, Any]]:
        """A row for each retrained network, compared with the others."""
        networks = prepare.retrained(self.problem, name, self.cache)
        found = [self._figures(name, network) for network, _ in networks]
        return [
            self._named(Row(name, RETRAINED, number))
            | measure.compare(mine, [each for each in found if each is not mine])
            | {"seconds": networks[number][1], "time_ratio": 1.0}
            for number, mine in enumerate(found)
        ]

    def _made(self, row: Row) -> dict[str, Any]:
        oracles = prepare.retrained(self.problem, row.scenario, self.cache)
        before = prepare.original(self.problem, self.cache)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(row.seed)  # dropout
            after, seconds = unlearnt(self.problem, before, row)
        theirs = [self._figures(row.scenario, network) for network, _ in oracles]
        return (
            self._named(row)
            | measure.compare(self._figures(row.scenario, after), theirs)
            | {"seconds": seconds, "time_ratio": seconds / fmean(taken for _, taken in oracles)}
        )

    def _named(self, row: Row) -> dict[str, Any]:
        return {
            "network": self.problem.name,
            "request": row.scenario,
            "method": row.method,
            "seed": row.seed,
            "settings": json.loads(row.settings),
        }

    def _figures(self, name: str, network: Network) -> dict[str, Any]:
        sets = sets_of(self.problem, self.problem.requests[name])
        seen = Seen.of(network, self.problem.data)
        mine = seen.train.select(sets.forgotten)
        tested = seen.test.select(sets.class_counts[seen.test.labels] > 0)
        found = {
            "forget_acc": accuracy(mine),
            "retain_acc": accuracy(seen.train.select(sets.kept)),
            "test_acc": accuracy(tested),
            "mia_auc": membership_auc(mine, seen.unseen(sets)),
        }
        percent = {figure: 100 * (value or 0.0) for figure, value in found.items()}
        return percent | {"_forget_logits": mine.logits, "_test_logits": tested.logits}


def unlearnt(problem: Problem, base: Network, row: Row) -> tuple[Network, float]:
    """The network after the request, and the processor seconds it took.

    Ours is what a job of the service does first, without out-of-sample predictions.
    """
    request = problem.requests[row.scenario]
    sets = sets_of(problem, request)
    if row.method == OURS:
        features, logits = base.outputs(sets.data.train, 500)  # known from the audit
        moments = Moments.of(features[sets.kept])  # kept since registration
        config = configured(sets, row.seed, removing=request.removing)
        started = process_time()
        model = unlearn(
            base,
            forget=sets.forget,
            retain=sets.reservoir,
            retain_logits=logits[sets.drawn],
            holdout=sets.calibration,
            moments=moments,
            class_counts=sets.class_counts,
            config=config,
            on_cycle=lambda *_: None,
        )
    else:
        given = Given(
            original=base,
            forget=sets.forget,
            retain=sets.retain,
            holdout=sets.calibration,
            fresh=partial(prepare.initial, problem),
            removing=request.removing,
            seed=row.seed,
        )
        started = process_time()
        model = methods.METHODS[row.method].unlearn(given, **json.loads(row.settings))
    return base.around(model.eval()), process_time() - started


def settings_of(method: str, problem: Problem) -> list[str]:
    """The settings to try of a baseline, as JSON, with the epochs that the budget allows; a step
    of NegGrad+ sees two batches."""
    passes = 2 if method == "NegGrad+" else 1
    epochs = max(round(BUDGET * problem.recipe.epochs / passes), 1)
    search = methods.METHODS[method].SEARCH[:TRIED]
    return [
        json.dumps(settings | ({"epochs": epochs} if "epochs" in settings else {}))
        for settings in search
    ]
