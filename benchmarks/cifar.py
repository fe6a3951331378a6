"""How well and how fast a small CIFAR-10 model forgets, next to one trained without the samples.

`python -m benchmarks.cifar` prints a table and writes benchmarks/results/cifar.json.
"""

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.cifar_models import (
    CLASSES,
    Data,
    Recipe,
    cnn,
    prepare,
    prepare_data,
    train,
    trained_model,
)
from worker.unlearning.alignment import Moments
from worker.unlearning.config import Config, Objective, default_config
from worker.unlearning.evaluation import Observed, evaluate
from worker.unlearning.forget import CycleScores, unlearn
from worker.unlearning.network import Network
from worker.unlearning.samples import Samples, class_balanced

__all__ = ["cnn", "prepare", "prepare_data", "train", "trained_model"]

ROOT = Path(__file__).parents[1]
RESERVOIR_SAMPLES = 5_000
THREADS = 2


@dataclass(frozen=True, slots=True)
class Task:
    """What is to be forgotten, and everything the service would have at hand for it."""

    objective: Objective
    original: Network
    original_seconds: float
    forget: Samples
    retain: Samples
    """All of it: for the reference models and for measuring, not for unlearning."""

    reservoir: Samples
    holdout: Samples
    test: Samples
    moments: Moments
    class_counts: Tensor


def make_task(data: Data, forgotten: Tensor, objective: Objective, cache: Path) -> Task:
    """The task of forgetting the masked training samples, with the trained original."""
    model, seconds = trained_model(data.train, Recipe(), cache)
    original = Network(model, head="head", prepare=prepare)
    forget, retain = data.train.select(forgotten), data.train.select(~forgotten)
    everything, _ = original.outputs(data.train, 500)
    chosen = class_balanced(retain.labels, RESERVOIR_SAMPLES, torch.Generator().manual_seed(0))
    return Task(
        objective=objective,
        original=original,
        original_seconds=seconds,
        forget=forget,
        retain=retain,
        reservoir=retain.select(chosen),
        holdout=data.holdout,
        test=data.test,
        moments=Moments.of(everything).without(everything[forgotten]),
        class_counts=retain.labels.bincount(minlength=len(CLASSES)),
    )


def random_samples(data: Data, count: int, seed: int) -> Tensor:
    """A mask over the training split: `count` random samples."""
    mask = torch.zeros(len(data.train), dtype=torch.bool)
    generator = torch.Generator().manual_seed(seed)
    mask[torch.randperm(len(mask), generator=generator)[:count]] = True
    return mask


def forget(task: Task, config: Config) -> tuple[Network, float, list[CycleScores]]:
    """The network after `unlearn`, the seconds that took, and the scores of its cycles."""
    scores: list[CycleScores] = []
    started = perf_counter()
    model = unlearn(
        task.original,
        forget=task.forget,
        retain=task.reservoir,
        holdout=task.holdout,
        moments=task.moments,
        class_counts=task.class_counts,
        config=config,
        on_cycle=scores.append,
    )
    return task.original.around(model), perf_counter() - started, scores


def timed_retraining(task: Task) -> float:
    """Seconds that retraining would take on this machine as busy as it is now."""
    started = perf_counter()
    train(task.retain, Recipe(seed=1, epochs=1))
    return (perf_counter() - started) * Recipe().epochs


def measure(task: Task, network: Network, reference: Network) -> dict[str, Any]:
    """One row: `evaluate` over the whole retain set, and the distance to a retrained network.

    kl and agreement compare with the reference on the forget samples: KL(reference || network)
    in nats, and the share of equal answers.
    """
    observed = Observed.of(
        network, forget=task.forget, retain=task.retain, holdout=task.holdout, test=task.test
    )
    evaluation = evaluate(observed, class_counts=task.class_counts)
    wanted = reference.outputs(task.forget, 500)[1]
    answered = observed.forget.logits
    kl = F.kl_div(
        answered.log_softmax(1), wanted.log_softmax(1), log_target=True, reduction="batchmean"
    )
    agreement = (wanted.argmax(1) == answered.argmax(1)).double().mean()
    return asdict(evaluation) | {"kl": kl.item(), "agreement": agreement.item()}


def run(task: Task, cache: Path, seed: int) -> dict[str, Any]:
    """Measure the original, the unlearned and the retrained network; all of one report.

    For single samples, a second retrained network shows how far apart two of them are.
    """
    seeds = (1,) if task.objective is Objective.REMOVE_CLASS else (1, 2)
    retrained = [trained_model(task.retain, Recipe(seed=s), cache) for s in seeds]
    references = [Network(model, head="head", prepare=prepare) for model, _ in retrained]
    config = default_config(
        task.objective,
        forget_count=len(task.forget),
        reservoir_count=len(task.reservoir),
        seed=seed,
    )
    retrain_seconds = timed_retraining(task)
    unlearned, seconds, scores = forget(task, config)
    networks = {"original": (task.original, 0.0), "unlearned": (unlearned, seconds)}
    for number, network in zip(seeds, references, strict=True):
        networks[f"retrained, seed {number}"] = (network, retrained[number - 1][1])
    return {
        "forget_samples": len(task.forget),
        "reservoir_samples": len(task.reservoir),
        "config": asdict(config),
        "cycles": [asdict(score) for score in scores],
        "retrain_seconds": retrain_seconds,
        "seconds_note": "a retrained row's seconds are those of the run that filled the cache; "
        "time_ratio divides by retrain_seconds: one epoch timed just before, times the epochs",
        "rows": {
            name: measure(task, network, references[0])
            | {"seconds": spent, "time_ratio": spent / retrain_seconds}
            for name, (network, spent) in networks.items()
        },
    }


def table(report: dict[str, Any]) -> str:
    """The rows of a report in Markdown; shares in percent, KL in nats."""
    heads = "forget | retain | test | hold-out, same classes | MIA AUC | DA forget | DA hold-out"
    lines = [f"| | {heads} | DA gap [95 %] | KL | agreement | s | time ratio |", "|---" * 13 + "|"]
    for name, row in report["rows"].items():
        shares = (
            "forget_accuracy",
            "retain_accuracy",
            "test_accuracy",
            "holdout_accuracy_same_classes",
            "membership_auc",
            "da_forget",
            "da_holdout",
        )
        cells = [f"{100 * row[share]:.1f}" for share in shares]
        gap = [100 * row[f"da_gap{end}"] for end in ("", "_low", "_high")]
        cells += ["{:+.2f} [{:.2f}, {:.2f}]".format(*gap), f"{row['kl']:.2f}"]
        cells += [f"{100 * row['agreement']:.1f}", f"{row['seconds']:.0f}"]
        lines.append("| " + " | ".join([name, *cells, f"{row['time_ratio']:.2f}"]) + " |")
    return "\n".join(lines)


def main() -> None:
    """Run one task, print its table and add it to the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=ROOT / "../shared/data")
    parser.add_argument("--cache", type=Path, default=ROOT / ".cache/cifar")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks/results/cifar.json")
    parser.add_argument("--forget", type=int, default=1000, help="how many random samples")
    parser.add_argument("--class", dest="label", choices=CLASSES, help="remove a class instead")
    parser.add_argument("--seed", type=int, default=0, help="of the choice and of the run")
    options = parser.parse_args()
    torch.set_num_threads(THREADS)

    data = prepare_data(options.data, options.cache)
    if options.label:
        name, objective = f"class {options.label}", Objective.REMOVE_CLASS
        forgotten = data.train.labels == CLASSES.index(options.label)
    else:
        name, objective = f"random {options.forget}", Objective.UNTRAIN_SAMPLES
        forgotten = random_samples(data, options.forget, options.seed)
    task = make_task(data, forgotten, objective, options.cache)
    report = run(task, options.cache, options.seed)

    print(f"{name}, seed {options.seed}\n\n{table(report)}")
    reports = json.loads(options.results.read_text()) if options.results.exists() else {}
    reports[f"{name}, seed {options.seed}"] = report
    options.results.parent.mkdir(parents=True, exist_ok=True)
    options.results.write_text(json.dumps(reports, indent=1) + "\n")


if __name__ == "__main__":
    main()
