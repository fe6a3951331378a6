"""Measures one network on one scenario, and its distance from the retrained ones.

Accuracies, AUCs, alignments and their differences are in percent; KL in nats.
"""

import hashlib
import json
import os
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import worker.unlearning
from benchmarks.cifar_models import CLASSES, Data
from benchmarks.quality.prepare import REFERENCES, Bench
from benchmarks.quality.scenarios import Scenario
from worker.unlearning.alignment import eigenspace, matching_weights, subspace_overlap
from worker.unlearning.audit.verdict import Audit, Limits, ReferenceScores, audit, exchangeability
from worker.unlearning.evaluation import (
    Observed,
    Outputs,
    accuracy,
    default_k,
    measured_gap,
    membership_auc,
    retain_moments,
)
from worker.unlearning.network import Network
from worker.unlearning.reference_models import Summarised, Summary, halves
from worker.unlearning.samples import Samples, batch_indices, class_balanced
from worker.unlearning.targets import among_alike, margins

RESERVOIR = 10_000
COMPARED = ("forget_acc", "retain_acc", "test_acc", "mia_auc")
RELEARN_LR, RELEARN_EPOCHS, RELEARNT = 0.01, 4, 0.95
CHANGING = ("config", "frozen_stem", "goal", "losses", "phases", "unlearn", "unseen_answers")
"""Files of the method that play no part in judging."""


@dataclass(frozen=True, slots=True)
class Sets:
    """The samples of one scenario, as the service would have them, by position in the data."""

    data: Data
    forgotten: Tensor
    """(N,) bool over the training split."""

    kept: Tensor
    """(N,) bool over the training split: all that stays."""

    drawn: Tensor
    """(R,) places of the reservoir in the training split."""

    audited: Tensor
    """(H,) bool over the hold-out: the half that no method is given."""

    @classmethod
    def of(cls, bench: Bench, forgotten: Tensor, kept: Tensor | None = None) -> "Sets":
        """The sets for forgetting these samples and, by default, keeping all others."""
        data = bench.data
        kept = ~forgotten if kept is None else kept
        places = kept.nonzero().squeeze(1)
        generator = torch.Generator().manual_seed(0)
        drawn = places[class_balanced(data.train.labels[places], RESERVOIR, generator)]
        return cls(data, forgotten, kept, drawn, audited(data.holdout))

    @property
    def forget(self) -> Samples:
        return self.data.train.select(self.forgotten)

    @property
    def retain(self) -> Samples:
        """Everything that stays: for baselines and for measuring."""
        return self.data.train.select(self.kept)

    @property
    def reservoir(self) -> Samples:
        return self.data.train.select(self.drawn)

    @property
    def calibration(self) -> Samples:
        """The half of the hold-out that methods may use."""
        return self.data.holdout.select(~self.audited)

    @property
    def class_counts(self) -> Tensor:
        return self.data.train.labels[self.kept].bincount(minlength=len(CLASSES))


@dataclass(frozen=True, slots=True)
class Seen:
    """One network's outputs on every sample."""

    train: Outputs
    holdout: Outputs
    test: Outputs

    @classmethod
    def of(cls, network: Network, data: Data) -> "Seen":
        return cls(*(Outputs.of(network, s, 128) for s in (data.train, data.holdout, data.test)))

    @classmethod
    def kept(cls, bench: Bench, network: Network) -> "Seen":
        """The same, cached under a digest of the weights."""
        digest = hashlib.sha256()
        for weight in network.model.state_dict().values():
            digest.update(weight.cpu().numpy().tobytes())
        path = bench.cache / "seen" / f"{digest.hexdigest()[:20]}.pt"
        if not path.exists():
            seen = cls.of(network, bench.data)
            parts = [(each.features, each.logits) for each in (seen.train, seen.holdout, seen.test)]
            write(path, lambda partial: torch.save(parts, partial))
        splits = (bench.data.train, bench.data.holdout, bench.data.test)
        stored = torch.load(path, weights_only=True)
        pairs = zip(stored, splits, strict=True)
        return cls(*(Outputs(features, logits, s.labels) for (features, logits), s in pairs))

    def unseen(self, sets: Sets) -> Outputs:
        """The outputs on all samples that no method was given: the audit half of the hold-out, and
        the test split."""
        return self.holdout.select(sets.audited).joined(self.test)

    def observed(self, sets: Sets) -> Observed:
        """What the service's audit would see of it."""
        return Observed(
            forget=self.train.select(sets.forgotten),
            retain=self.train.select(sets.drawn),
            holdout=self.holdout.select(sets.audited),
            test=self.test,
        )


def reference_scores(bench: Bench, forgotten: Tensor) -> ReferenceScores:
    """What the service would have kept of the reference models and passed to its audit."""
    known, odd = _summarised(bench), audited(bench.data.holdout)
    return ReferenceScores(
        forget_mean=known.unseen.mean[forgotten],
        forget_std=known.unseen.std[forgotten],
        holdout_mean=known.holdout.mean[odd],
        holdout_std=known.holdout.std[odd],
    )


def ease(bench: Bench, sets: Sets) -> Tensor:
    """(F,) how easy the forget samples are to the reference models, as the service's jobs say."""
    known = _summarised(bench)
    return among_alike(
        known.unseen.mean[sets.forgotten],
        sets.forget.labels,
        known.holdout.mean[~sets.audited],
        sets.calibration.labels,
    ).float()


def _summarised(bench: Bench) -> Summarised:
    train, holdout = bench.data.train, bench.data.holdout
    shared = halves(len(holdout), REFERENCES, torch.Generator().manual_seed(0))
    summary = Summary(len(train), len(holdout), len(CLASSES))
    logits, theirs = (bench.reference_logits(split) for split in ("train", "holdout"))
    for number, seen in enumerate(bench.seen()):
        summary.add(0, logits[number], train.labels, seen)
        summary.add_holdout(0, theirs[number], holdout.labels, shared[number])
    return summary.result(REFERENCES)


def audited(holdout: Samples) -> Tensor:
    """(H,) bool: the half of the hold-out that methods never see."""
    return torch.arange(len(holdout)) % 2 == 1


def judge(
    bench: Bench, scenario: Scenario, sets: Sets, before: Seen, after: Seen, seed: int = 0
) -> Audit:
    """The audit of a job that turned `before` into `after`, with reference models."""
    return audit(
        before.observed(sets),
        after.observed(sets),
        class_counts=sets.class_counts,
        removing=scenario.removing,
        limits=Limits(),
        references=reference_scores(bench, sets.forgotten),
        seed=seed,
    )


def figures(
    bench: Bench, scenario: Scenario, sets: Sets, network: Network, seen: Seen
) -> dict[str, Any]:
    """The network's figures on each set, not compared yet; logits are kept for comparison.

    The relearning time is left out when methods are only tuned.
    """
    mine, kept, unseen = (
        seen.train.select(sets.forgotten),
        seen.train.select(sets.kept),
        seen.unseen(sets),
    )
    tested = seen.test.select(sets.class_counts[seen.test.labels] > 0)
    space = eigenspace(retain_moments(kept, sets.class_counts), k=default_k(sets.class_counts))
    da_forget, da_holdout, gap = measured_gap(mine, unseen, space, seed=0)
    alike = matching_weights(unseen.labels, mine.labels).float()
    family = exchangeability(
        seen.observed(sets),
        class_counts=sets.class_counts,
        references=reference_scores(bench, sets.forgotten),
    )
    tested_by = {test.name: test.value for test in family.tests}
    return {
        "forget_acc": _percent(accuracy(mine)),
        "retain_acc": _percent(accuracy(kept)),
        "test_acc": _percent(accuracy(tested)),
        "holdout_acc": _percent(accuracy(unseen, alike)),
        "mia_auc": _percent(membership_auc(mine, unseen)),
        "mia_auc_margin": _percent(_margin_auc(mine, unseen)),
        "mia_auc_per_sample": _percent(tested_by.get("membership_per_sample")),
        "da_forget": 100 * da_forget,
        "da_holdout": 100 * da_holdout,
        "da_gap": 100 * gap.value,
        "da_gap_low": _percent(gap.low),
        "da_gap_high": _percent(gap.high),
        "subspace_overlap": _percent(subspace_overlap(mine.features, space)),
        "probe_accuracy_gap": _percent(tested_by.get("probe_accuracy")),
        "probe_f1_gap": _percent(tested_by.get("probe_f1")),
        "probe_nmi_gap": _percent(tested_by.get("probe_nmi")),
        "test_loss": tested.losses().mean().item(),
        **(scar(network, mine, tested) if scenario.removing else {}),
        "relearn_epochs": None if scenario.tuning else relearn_epochs(network, sets.forget),
        "_forget_logits": mine.logits,
        "_test_logits": tested.logits,
    }


def scar(network: Network, mine: Outputs, kept: Outputs) -> dict[str, float]:
    """What removing a class left in the head, to be compared with a head that never learned it.

    Args:
        mine: outputs on samples of the removed class.
        kept: on test samples of the others.

    Returns:
        The lowest logit that any of these samples gets for the class; the mean log-probability of
        the class on the others, in nats; and the norm of its row in the head, as a share of the
        mean norm of the other rows.
    """
    label = int(mine.labels[0])
    theirs = torch.cat([mine.logits[:, label], kept.logits[:, label]])
    rows = network.model.get_submodule(network.head).get_parameter("weight").detach()
    norms = rows.norm(dim=1)
    others = norms[torch.arange(len(norms)) != label]
    return {
        "lowest_logit": theirs.min().item(),
        "class_log_probability": kept.logits.log_softmax(1)[:, label].mean().item(),
        "head_row": (norms[label] / others.mean()).item(),
    }


def compare(row: dict[str, Any], oracles: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The row with its distances to the mean oracle, without the logits.

    avg_gap: mean distance over forget, retain, test accuracy and membership AUC, in points.
    spread_*: the same distances in standard deviations of the oracles (at least 0.1 points).
    """
    mean = {name: statistics.mean(o[name] for o in oracles) for name in COMPARED}
    away = {name: row[name] - mean[name] for name in COMPARED}
    spread = {
        name: max(statistics.stdev([o[name] for o in oracles]) if len(oracles) > 1 else 0.0, 0.1)
        for name in COMPARED
    }
    compared = {name: value for name, value in row.items() if not name.startswith("_")}
    return compared | {
        "avg_gap": statistics.mean(abs(value) for value in away.values()),
        **{f"gap_{name}": value for name, value in away.items()},
        **{f"spread_{name}": away[name] / spread[name] for name in COMPARED},
        "kl_oracle": _mean_kl(row, oracles, "_forget_logits"),
        "kl_oracle_test": _mean_kl(row, oracles, "_test_logits"),
        "agreement": statistics.mean(
            100
            * (o["_forget_logits"].argmax(1) == row["_forget_logits"].argmax(1))
            .double()
            .mean()
            .item()
            for o in oracles
        ),
    }


def relearn_epochs(network: Network, forget: Samples) -> int:
    """Epochs of SGD on the forget set until 95 % of it is answered correctly; at most 4."""
    again = network.copy()
    again.model.requires_grad_(True)
    optimizer = torch.optim.SGD(again.model.parameters(), RELEARN_LR, momentum=0.9)
    generator = torch.Generator().manual_seed(0)
    for epoch in range(RELEARN_EPOCHS):
        if (accuracy(Outputs.of(again, forget, 500)) or 0) >= RELEARNT:
            return epoch
        again.model.eval()  # a forget set of one has no batch statistics
        for chosen in batch_indices(len(forget), 64, generator):
            _, logits = again(forget.inputs[chosen])
            optimizer.zero_grad()
            labels = forget.labels[chosen].to(logits.device)
            F.cross_entropy(logits, labels).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return RELEARN_EPOCHS


def kl(wanted: Tensor, given: Tensor) -> float:
    """KL(wanted || given) of logits (N, C), mean over the samples, in nats."""
    return F.kl_div(
        given.log_softmax(1), wanted.log_softmax(1), log_target=True, reduction="batchmean"
    ).item()


def source(*, judging: bool) -> str:
    """The source that our rows depend on, or only the part that judges any row."""
    [folder] = worker.unlearning.__path__
    files = (Path(__file__), *sorted(Path(folder).rglob("*.py")))
    return "".join(f.read_text() for f in files if not (judging and f.stem in CHANGING))


def judges() -> str:
    """A digest of the judging code: verdicts with another digest are not from the present audit."""
    return hashlib.sha256(source(judging=True).encode()).hexdigest()[:12]


def save(path: Path, content: Any) -> None:
    """Write JSON atomically."""
    text = json.dumps(content, indent=1) + "\n"
    write(path, lambda partial: partial.write_text(text))


def write(path: Path, fill: Callable[[Path], object]) -> None:
    """Write a file atomically: an interrupted run leaves no partial file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}")
    fill(partial)
    partial.replace(path)


def _mean_kl(row: dict[str, Any], oracles: Sequence[dict[str, Any]], name: str) -> float:
    return statistics.mean(kl(o[name], row[name]) for o in oracles)


def _margin_auc(mine: Outputs, unseen: Outputs) -> float | None:
    """AUC of the margin; `membership_auc` ranks losses, so margins stand in as logits of two."""

    def as_losses(outputs: Outputs) -> Outputs:
        margin = margins(outputs.logits, outputs.labels)
        own = torch.zeros(len(margin), 10).scatter(1, outputs.labels[:, None], margin[:, None])
        return Outputs(outputs.features, own, outputs.labels)

    return membership_auc(as_losses(mine), as_losses(unseen))


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share
