"""One row of the benchmark: one method on one scenario with one seed, timed and measured.

Each row is made in its own process, so that its peak memory is its own, and cached under the
settings and source of the method; our rows also under the source of the measurement. A verdict is
shown only while the audit is unchanged.
"""

import hashlib
import inspect
import json
import resource
import statistics
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.cifar_models import Build, train
from benchmarks.quality import measure, methods
from benchmarks.quality.measure import Seen, Sets
from benchmarks.quality.methods.given import Given
from benchmarks.quality.prepare import DEV_SEED, Bench, Place, Size
from benchmarks.quality.scenarios import Scenario
from domain.states import Verdict
from worker.jobs.unlearn.plan import LEVELS
from worker.unlearning.alignment import Moments
from worker.unlearning.config import Config, default_config
from worker.unlearning.network import Network
from worker.unlearning.samples import skew
from worker.unlearning.unlearn import unlearn

OURS, OURS_WITH = "Lethe", "Lethe, out-of-sample"
TIMED_STEPS = 16

ESCALATION: dict[str, dict[str, Any]] = {
    "first round" if step is None else step.replace("_", " "): {"level": level} if level else {}
    for step, level in LEVELS.items()
}
"""The steps of a job after each verdict `fail`, always from the original."""


@dataclass(frozen=True, slots=True)
class Row:
    """The task of one row."""

    scenario: str
    method: str
    seed: int
    """The seed of the original, and of the method."""

    settings: str = "{}"
    """JSON: settings of a baseline; for our method, the `level` of the defaults and the fields of
    `Config` that differ from them."""

    def key(self) -> str:
        """A digest of the row and of the source it depends on."""
        digest = hashlib.sha256(json.dumps(asdict(self)).encode())
        digest.update(_source(self.method).encode())
        return digest.hexdigest()[:20]


def kept(row: Row, place: Place) -> dict[str, Any] | None:
    """The finished row, if cached, without the verdict of an earlier audit."""
    path = _path(row, place)
    if not path.exists():
        return None
    found: dict[str, Any] = json.loads(path.read_text())
    if found.get("judged_by") != measure.judges():
        found |= {"verdict": None, "reason": None}
    return found


def perform(row: Row, place: Place) -> dict[str, Any]:
    """The finished row, from the cache or made now."""
    if found := kept(row, place):
        return found
    torch.set_num_threads(1)
    bench = Bench.open(place)
    done = _make(bench, row)
    measure.save(_path(row, place), done)
    return done


def _path(row: Row, place: Place) -> Path:
    return place.cache / "rows" / f"{row.key()}.json"


def oracle_figures(bench: Bench, scenario: Scenario) -> list[dict[str, Any]]:
    """The figures of all retrained models of a scenario, cached."""
    name = f"{scenario.name.replace(' ', '-')}-{measure.judges()}"
    path = bench.cache / "figures" / f"{name}.pt"
    if not path.exists():
        sets = Sets.of(bench, scenario.forgotten)
        made = []
        for number in range(scenario.oracles):
            network = bench.oracle(scenario, number)
            seen = Seen.kept(bench, network)
            made.append(measure.figures(bench, scenario, sets, network, seen))
        measure.write(path, lambda partial: torch.save(made, partial))
    found: list[dict[str, Any]] = torch.load(path, weights_only=True)
    return found


def oracle_rows(bench: Bench, scenario: Scenario) -> list[dict[str, Any]]:
    """Rows that treat each retrained model as a method, compared with the others."""
    found = oracle_figures(bench, scenario)
    return [
        {"scenario": scenario.name, "method": "retrained", "seed": number, "settings": {}}
        | measure.compare(row, [other for other in found if other is not row])
        | {"time_ratio": 1.0}
        for number, row in enumerate(found)
    ]


def _make(bench: Bench, row: Row) -> dict[str, Any]:
    scenario = bench.scenarios()[row.scenario]
    sets = Sets.of(bench, scenario.forgotten)
    original = bench.original(row.seed)
    retraining = [retraining_seconds(bench, sets)]
    before_mib = _peak_mib(bench.size)
    spent, after = 0.0, original
    for batch in batches(scenario):
        now = replace(scenario, forgotten=batch.upto)
        after, seconds = unlearnt(bench, now, after, batch.new, row)
        spent += seconds
    peak = _peak_mib(bench.size)
    retraining.append(retraining_seconds(bench, sets))
    retrain_seconds = statistics.mean(retraining)
    seen = Seen.of(after, bench.data)
    before = Seen.kept(bench, original)
    measured = measure.figures(bench, scenario, sets, after, seen)
    judged = measure.judge(bench, scenario, sets, before, seen)
    return {
        "scenario": row.scenario,
        "method": row.method,
        "seed": row.seed,
        "settings": json.loads(row.settings),
        **measure.compare(measured, oracle_figures(bench, scenario)),
        "seconds": spent,
        "retrain_seconds": retrain_seconds,
        "time_ratio": spent / retrain_seconds,
        "peak_mib": peak,
        "peak_mib_before": before_mib,
        "verdict": Verdict.of(fails=judged.fails, has_power=judged.has_power).value,
        "reason": judged.reason,
        "judged_by": measure.judges(),
    }


@dataclass(frozen=True, slots=True)
class _Batch:
    new: Tensor
    upto: Tensor


def batches(scenario: Scenario) -> list[_Batch]:
    """The requests in which the forget set arrives, as masks (N,)."""
    places = scenario.forgotten.nonzero().squeeze(1)
    order = torch.randperm(len(places), generator=torch.Generator().manual_seed(7))
    found, upto = [], torch.zeros_like(scenario.forgotten)
    for part in places[order].tensor_split(scenario.batches):
        new = torch.zeros_like(upto)
        new[part] = True
        upto = upto | new
        found.append(_Batch(new, upto))
    return found


def unlearnt(
    bench: Bench, scenario: Scenario, base: Network, new: Tensor, row: Row
) -> tuple[Network, float]:
    """The network after one request, and the seconds it took."""
    sets = Sets.of(bench, new, kept=~scenario.forgotten)
    settings = json.loads(row.settings)
    if row.method in (OURS, OURS_WITH):
        predictions, ease = None, None
        if row.method == OURS_WITH:
            predictions, ease = bench.unseen_predictions()[new], measure.ease(bench, sets)
        features, logits = base.outputs(sets.data.train, 500)  # known from the audit
        moments = Moments.of(features[sets.kept])  # kept since registration
        config = configured(sets, row.seed, removing=scenario.removing, **settings)
        started = _clock(bench.size)
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
            predictions=predictions,
            ease=ease,
        )
    else:
        given = Given(
            original=base,
            forget=sets.forget,
            retain=sets.retain,
            holdout=sets.calibration,
            fresh=partial(_fresh, bench.size.build),
            removing=scenario.removing,
            seed=row.seed,
        )
        started = _clock(bench.size)
        model = methods.METHODS[row.method].unlearn(given, **settings)
    return base.around(model.eval()), _clock(bench.size) - started


def configured(sets: Sets, seed: int, level: int = 0, *, removing: bool, **changes: Any) -> Config:
    """The defaults of the service for this problem, with some fields replaced."""
    config = default_config(
        removing=removing,
        forget_count=len(sets.forget),
        reservoir_count=len(sets.reservoir),
        skew=skew(sets.forget.labels, sets.class_counts),
        seed=seed,
        level=level,
    )
    return replace(config, **changes)


def _fresh(build: Build, seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()


def retraining_seconds(bench: Bench, sets: Sets) -> float:
    """The time of retraining on this machine under its present load, from a few of its steps."""
    size = bench.size
    recipe = replace(size.recipe, seed=DEV_SEED, epochs=1)
    count = min(TIMED_STEPS, len(sets.retain) // recipe.batch_size)
    few = sets.retain.select(torch.arange(count * recipe.batch_size))
    warm = few.select(torch.arange(2 * recipe.batch_size))  # the first steps are slower
    train(warm, recipe, size.build, size.device)
    started = _clock(size)
    train(few, recipe, size.build, size.device)
    steps = size.recipe.epochs * -(-len(sets.retain) // recipe.batch_size)
    return (_clock(size) - started) / count * steps


def _clock(size: Size) -> float:
    """On a CPU, seconds of this process, which other load does not stretch; on a GPU, real time."""
    if size.device == "cpu":
        return process_time()
    torch.cuda.synchronize()
    return perf_counter()


def _peak_mib(size: Size) -> float:
    """Peak memory of the process on a CPU, of the device on a GPU."""
    if size.device == "cpu":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return torch.cuda.max_memory_allocated() / 2**20


def _source(method: str) -> str:
    if method not in (OURS, OURS_WITH):
        return inspect.getsource(methods.METHODS[method]) + inspect.getsource(methods.training)
    return measure.source(judging=False)
