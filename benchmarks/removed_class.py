"""What removing a class leaves in a network, beside networks that never learned the class.

`python -m benchmarks.removed_class` trains a small CNN on CIFAR-10 images with and without the
class "horse", removes the class, once for each step of a job, and prints the figures. Trained
networks are cached.
"""

import argparse
from pathlib import Path

import torch

from benchmarks.cifar_models import CLASSES, Recipe, prepare, prepare_data, trained_model
from benchmarks.quality.measure import scar
from worker.jobs.unlearn.plan import LEVELS
from worker.unlearning.alignment import Moments
from worker.unlearning.audit.verdict import Limits, audit
from worker.unlearning.config import default_config
from worker.unlearning.evaluation import Observed, evaluate, retain_moments
from worker.unlearning.network import Network
from worker.unlearning.unlearn import unlearn

ROOT = Path(__file__).parents[1]
HORSE = CLASSES.index("horse")
ORIGINAL_SEED, ORACLE_SEEDS = 10, (100, 101)


def main() -> None:
    """Train or read the networks, remove the class, and print a line for each network."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=ROOT / "../shared/data")
    parser.add_argument("--cache", type=Path, default=ROOT / ".cache/removed-class")
    parser.add_argument("--train-samples", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=Recipe().epochs)
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = prepare_data(
        options.data,
        options.cache,
        train_samples=options.train_samples,
        holdout_samples=options.train_samples // 2,
    )
    leaving = data.train.labels == HORSE
    forget, retain = data.train.select(leaving), data.train.select(~leaving)
    halves = torch.arange(len(data.holdout)) % 2 == 0
    counts = retain.labels.bincount(minlength=len(CLASSES))

    def network(samples: object, seed: int) -> Network:
        recipe = Recipe(seed=seed, epochs=options.epochs)
        model, _ = trained_model(samples, recipe, options.cache)  # type: ignore[arg-type]
        return Network(model, head="head", prepare=prepare)

    def seen(network: Network) -> Observed:
        return Observed.of(
            network, forget=forget, retain=retain, holdout=data.holdout.select(~halves),
            test=data.test,
        )  # fmt: skip

    original = network(data.train, ORIGINAL_SEED)
    before = seen(original)

    def show(name: str, network: Network) -> None:
        after = seen(network)
        found = evaluate(after, class_counts=counts, moments=retain_moments(after.retain, counts))
        judged = audit(before, after, class_counts=counts, removing=True, limits=Limits())
        tested = after.test.select(after.test.labels != HORSE) if after.test else after.holdout
        left = scar(network, after.forget, tested)
        failed = [test.name for test in (*judged.tests, *judged.guards) if not test.passed]
        print(
            f"{name:14} lowest logit {left['lowest_logit']:6.1f}  log p "
            f"{left['class_log_probability']:6.1f}  head row {left['head_row']:.2f}  test loss "
            f"{tested.losses().mean():.2f}  test {100 * (found.test_accuracy or 0):.1f}  AUC "
            f"{100 * (found.membership_auc or 0):.1f}  DA gap {100 * (found.da_gap or 0):+.2f}  "
            f"failed: {', '.join(failed) or '-'}",
            flush=True,
        )

    show("original", original)
    for seed in ORACLE_SEEDS:
        show(f"retrained {seed}", network(retain, seed))
    for step, level in LEVELS.items():
        config = default_config(
            removing=True, forget_count=len(forget), reservoir_count=len(retain), level=level
        )
        changed = unlearn(
            original,
            forget=forget,
            retain=retain,
            retain_logits=before.retain.logits,
            holdout=data.holdout.select(halves),
            moments=Moments.of(before.retain.features),
            class_counts=counts,
            config=config,
            on_cycle=lambda *_: None,
        )
        show(step or "first round", original.around(changed))


if __name__ == "__main__":
    main()
