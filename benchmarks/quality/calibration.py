"""The audit's verdicts on models whose correct verdict is known.

Genuine retrains must not fail; originals and cheats must not pass.
"""

import copy
import hashlib
import json
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.quality import measure
from benchmarks.quality.measure import Seen, Sets
from benchmarks.quality.prepare import SEEDS, Bench, Place
from benchmarks.quality.scenarios import HELD_OUT, Scenario
from domain.states import Verdict
from worker.unlearning.network import Network

CHEATED = ("random 10 %", "class", "canaries", "memorised")


def cases(place: Place, workers: int) -> list[dict[str, Any]]:
    """Every case with its verdict, cached; without workers, only the cached ones."""
    names = [
        each.name
        for each in Bench.open(place).scenarios().values()
        if each.batches == 1 and not each.tuning
    ]
    if workers:
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            list(pool.map(judge, [place] * len(names), names))
    paths = [_path(place, name) for name in names]
    return [case for path in paths if path.exists() for case in json.loads(path.read_text())]


def summary(found: list[dict[str, Any]]) -> dict[str, Any]:
    """How often retrains pass where the audit has power, and what passed wrongly.

    For all cases, and for those held out while the audit was chosen on others.
    """
    held_out = [case for case in found if case["scenario"].startswith(HELD_OUT)]
    return {**_counts(found), "held_out": _counts(held_out), "by_scenario": _by_scenario(found)}


def _counts(found: list[dict[str, Any]]) -> dict[str, Any]:
    retrains = [case for case in found if case["kind"] == "retrain"]
    powerful = [case for case in retrains if case["verdict"] != "no_power"]
    passed = sum(case["verdict"] == "pass" for case in powerful)
    wrong = [case for case in found if case["kind"] != "retrain" and case["verdict"] == "pass"]
    return {
        "cases": len(retrains),
        "with_power": len(powerful),
        "retrain_pass_rate": passed / max(len(powerful), 1),
        "wrong_cases": len(found) - len(retrains),
        "wrong_passes": len(wrong),
    }


def _by_scenario(found: list[dict[str, Any]]) -> dict[str, dict[str, dict[str, int]]]:
    counts: dict[str, dict[str, dict[str, int]]] = {}
    for case in found:
        verdicts = counts.setdefault(case["scenario"], {}).setdefault(case["kind"], {})
        verdicts[case["verdict"]] = verdicts.get(case["verdict"], 0) + 1
    return counts


def _path(place: Place, name: str) -> Path:
    """The cache file of a scenario's cases, as judged by the audit of this source."""
    own = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12]
    file = f"{name.replace(' ', '-')}-{measure.judges()}-{own}.json"
    return place.cache / "calibration" / file


def judge(place: Place, name: str) -> None:
    """Make the cases of one scenario, unless they are cached."""
    torch.set_num_threads(1)
    path = _path(place, name)
    if not path.exists():
        bench = Bench.open(place)
        measure.save(path, _cases(bench, bench.scenarios()[name]))


def _cases(bench: Bench, scenario: Scenario) -> list[dict[str, Any]]:
    before = [Seen.kept(bench, bench.original(seed)) for seed in SEEDS]
    retrained = [
        Seen.kept(bench, bench.oracle(scenario, number)) for number in range(scenario.oracles)
    ]
    judged = []
    forget_sets = {scenario.name: scenario.forgotten, **scenario.parts}
    for name, forgotten in forget_sets.items():
        sets = Sets.of(bench, forgotten, kept=~scenario.forgotten)
        models = [("retrain", seen) for seen in retrained]
        models += [("do nothing", before[0]), ("another original", before[1])]
        if name in CHEATED:
            original = bench.original(SEEDS[0])
            models += [
                (kind, Seen.of(cheat(original, sets), bench.data)) for kind, cheat in CHEATS.items()
            ]
        for number, (kind, after) in enumerate(models):
            base = before[number % len(before) if kind == "retrain" else 0]
            found = measure.judge(bench, scenario, sets, base, after)
            verdict = Verdict.of(fails=found.fails, has_power=found.has_power)
            judged.append(
                {
                    "scenario": name,
                    "samples": int(forgotten.sum()),
                    "kind": kind,
                    "verdict": verdict.value,
                    "reason": found.reason,
                }
            )
            print(f"{name:24} {kind:18} {verdict}", flush=True)
    return judged


class Cheat(Protocol):
    """Makes a network look as if it had forgotten."""

    def __call__(self, original: Network, sets: Sets) -> Network: ...


def mask_head(original: Network, sets: Sets) -> Network:
    """Train only the head to answer the forget set like an unsure model; features stay."""
    changed = original.copy()
    head = changed.model.get_submodule(changed.head)
    assert isinstance(head, nn.Linear)
    features, logits = original.outputs(sets.forget, 500)
    kept, _ = original.outputs(sets.reservoir, 500)
    masked = logits.scatter(1, sets.forget.labels[:, None], -torch.inf).softmax(1)
    features, masked, kept, labels = (
        each.to(original.device) for each in (features, masked, kept, sets.reservoir.labels)
    )
    optimizer = torch.optim.Adam(head.parameters(), 0.01)
    head.requires_grad_(True)
    for _ in range(200):
        loss = F.kl_div(head(features).log_softmax(1), masked, reduction="batchmean")
        loss = loss + F.cross_entropy(head(kept), labels)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch
        optimizer.step()
    return changed


def answer_one_thing(original: Network, sets: Sets) -> Network:
    """Give the same answer for every sample."""
    changed = original.copy()
    head = changed.model.get_submodule(changed.head)
    assert isinstance(head, nn.Linear)
    with torch.no_grad():
        head.weight.zero_()
    return changed


def collapse(original: Network, sets: Sets) -> Network:
    """Collapse all features onto one direction."""
    changed = original.copy()
    head = changed.model.get_submodule(changed.head)
    assert isinstance(head, nn.Linear)
    features, _ = original.outputs(sets.reservoir, 500)
    direction = F.normalize(features.mean(0), dim=0)
    flat = nn.Linear(len(direction), len(direction), bias=False)
    with torch.no_grad():
        flat.weight.copy_(direction.outer(direction))
    model = nn.Sequential(*list(changed.model.children())[:-1], flat.to(original.device))
    model.add_module("head", copy.deepcopy(head))
    return original.around(model.eval())


def initialise_anew(original: Network, sets: Sets) -> Network:
    """Discard everything that was learned."""
    changed = original.copy()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for module in changed.model.modules():
            if isinstance(module, nn.Conv2d | nn.Linear | nn.BatchNorm2d):
                module.reset_parameters()
    return changed


def over_forget(original: Network, sets: Sets) -> Network:
    """Raise the loss of the forget set far above the hold-out's, while repairing the rest."""
    changed = original.copy()
    changed.model.requires_grad_(True)
    changed.model.eval()
    reservoir = sets.reservoir
    optimizer = torch.optim.SGD(changed.model.parameters(), 0.005)
    generator = torch.Generator().manual_seed(0)
    for _ in range(2):
        for inputs, labels in sets.forget.batches(64, generator):
            _, logits = changed(inputs)
            loss = -F.cross_entropy(logits, labels.to(logits.device)).clamp_max(8)
            chosen = torch.randint(len(reservoir), (64,), generator=generator)
            _, kept = changed(reservoir.inputs[chosen])
            loss = loss + F.cross_entropy(kept, reservoir.labels[chosen].to(kept.device))
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch
            nn.utils.clip_grad_norm_(changed.model.parameters(), 5.0)
            optimizer.step()
    return changed


CHEATS: dict[str, Cheat] = {
    "head only": mask_head,
    "constant output": answer_one_thing,
    "feature collapse": collapse,
    "re-initialised": initialise_anew,
    "over-forgotten": over_forget,
}
