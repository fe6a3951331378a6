"""What registration does for a model of which nothing but the head is ever fitted anew.

It checks that the rest is a public network, bit for bit; keeps what enters the head for every
training sample; and fits the head once on all of them. That fit is not served: the head that was
registered is. It says beforehand what a request will do to the model's answers besides forgetting.

Shapes: N samples, d feature dimensions, C classes.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

import torch
from sqlalchemy import select
from sqlalchemy.orm import Session
from torch import nn

from domain import tombstones, trail
from domain.errors import JobError
from domain.policy import Policy
from domain.states import Split
from domain.tables import Dataset, Job, Model, Sample
from domain.version_events import BackboneChecked
from worker.data import decode, head_features
from worker.data.head_features import Features
from worker.data.left_out import stays
from worker.data.parquet import Source
from worker.engine.workbench import Workbench
from worker.networks import backbones, weights
from worker.store.artifacts import digest_of
from worker.unlearning import softmax_regression
from worker.unlearning.audit.guards import Limits, guards, in_words
from worker.unlearning.errors import UnlearningError
from worker.unlearning.evaluation import Observed, Outputs, accuracy
from worker.unlearning.network import Network

NAME = "backbone"
"""What registration found, among the figures of version 1 and of all that are made from it."""

TOLERANCE = 1e-3
"""By how much, of its largest logit, the head's answer may differ from the network's."""

SAME = 1e-3
"""The largest difference between two probabilities that counts as none."""


@dataclass(frozen=True, slots=True)
class Frozen:
    """A network that is its backbone, but for the head."""

    sha256: list[str]
    """Of the backbone's files."""

    tensors: int
    """How many were compared."""


@dataclass(frozen=True, slots=True)
class Kept:
    """The features of all training samples, and the head fitted on them."""

    sha256: str
    """Of the file of features."""

    fit: softmax_regression.Fit
    seconds: float
    """What the fit took."""


def examined(
    bench: Workbench,
    model: Model,
    network: Network,
    source: Source,
    few: Sequence[tuple[str, int]],
    allow: Callable[[str], Path],
) -> Frozen | None:
    """Check that the network is its backbone but for a linear head; None for any other model.

    Args:
        few: ids and positions of some samples to try it on.

    Raises:
        JobError: it is not.
    """
    if model.backbone is None:
        return None
    bench.report("comparing the network with its backbone", 0.015)
    files = weights.files(allow(model.backbone["weights"]), allow)
    head = backbones.require_linear(network.model, network.head)
    tensors = backbones.require_equal(network.model, network.head, files)
    samples = decode.fetch(source, few, model.preprocessing)
    head_features.require_apart(network, samples)
    _require_last(network, head, Outputs.of(network, samples, len(samples)))
    return Frozen([digest_of(file) for file in files], tensors)


def keep(
    bench: Workbench,
    model: Model,
    dataset: Dataset,
    network: Network,
    source: Source,
    left_out: Collection[str],
) -> Kept:
    """Store what enters the head for every training sample, and fit a head on it.

    Args:
        left_out: ids of samples that the network was trained without.

    Raises:
        JobError: the dataset changed since it was indexed, the network fails on a sample, or the
            fit does not converge.
    """
    bench.report("keeping what enters the head", 0.9)
    for attempt in bench.transaction():
        with attempt as session:
            named = _training(session, model, left_out)
    sha256 = head_features.write(bench.store, network, source, model, dataset, named)
    bench.report("fitting the head on all training samples", 0.92)
    started = monotonic()
    fit = fitted(model, network, head_features.read(bench.store, sha256))
    return Kept(sha256, fit, monotonic() - started)


def fitted(model: Model, network: Network, features: Features) -> softmax_regression.Fit:
    """The head that these samples give; it depends on nothing else.

    Raises:
        JobError: the fit does not converge.
    """
    head = _head(network)
    assert model.backbone is not None  # noqa: S101 (there are no features otherwise)
    try:
        return softmax_regression.fit(
            features.blocks,
            classes=head.out_features,
            l2=model.backbone["l2"],
            bias=head.bias is not None,
        )
    except UnlearningError as error:
        raise JobError(str(error)) from error


def with_head(network: Network, fit: softmax_regression.Fit) -> Network:
    """A copy of the network with this head; the rest is the same, bit for bit."""
    copy = network.copy()
    head = _head(copy)
    with torch.no_grad():
        head.weight.copy_(fit.weight)
        if fit.bias is not None:
            head.bias.copy_(fit.bias)
    return copy


def compared(
    model: Model, frozen: Frozen, kept: Kept, *, retain: Outputs, holdout: Outputs, test: Outputs
) -> dict[str, Any]:
    """What registration found, as the version's figures say it: how the head that was registered
    and the one that is fitted anew answer.

    Args:
        retain, holdout, test: of the network as it was registered; some may be empty.

    Raises:
        JobError: the guards of the model's policy would hold back a version with the fitted head,
            though nothing was forgotten.
    """
    named = {"retain": retain, "holdout": holdout, "test": test}
    new = {name: _answered(kept.fit, outputs) for name, outputs in named.items()}
    policy = Policy.model_validate(model.policy)
    found = guards(
        _observed(**named),
        _observed(**new),
        lost=torch.zeros(kept.fit.weight.shape[0], dtype=torch.bool),
        removing=False,
        limits=Limits(
            max_test_accuracy_drop=policy.max_test_accuracy_drop,
            max_class_accuracy_drop=policy.max_class_accuracy_drop,
            max_nll_increase=policy.max_nll_increase,
            max_ece_increase=policy.max_ece_increase,
        ),
    )
    assert model.backbone is not None  # noqa: S101 (it was examined)
    l2 = model.backbone["l2"]
    if failed := [guard for guard in found if not guard.passed]:
        raise JobError(
            f"With l2 = {l2:g}, the head fitted anew on all training samples is worth less than "
            f"the registered one by more than the policy allows ({'; '.join(map(in_words, failed))}"
            "), so a person would have to decide about every request. Try another `l2`: one that "
            "is about what the head was trained with (of scikit-learn's C, 1 / (C * training "
            "samples)). Or train the head in this way yourself, or raise the policy's limits."
        )
    difference = max(_largest_difference(named[name], new[name]) for name in named)
    return {
        "source": model.backbone["source"],
        "sha256": frozen.sha256,
        "tensors": frozen.tensors,
        "trained_on_dataset": model.backbone["trained_on_dataset"],
        "refit": {
            "l2": l2,
            "seconds": kept.seconds,
            "retain_accuracy": accuracy(new["retain"]),
            "holdout_accuracy": accuracy(new["holdout"]),
            "test_accuracy": accuracy(new["test"]),
            "largest_difference": difference,
            "same_answers": difference <= SAME,
        },
    }


def tell(session: Session, job: Job, model: Model, figures: dict[str, Any]) -> None:
    """Record in the audit trail what was compared, and what was declared."""
    trail.record(
        session, "worker", model.id,
        BackboneChecked(
            job=job.id, source=figures["source"], sha256=figures["sha256"],
            tensors=figures["tensors"], trained_on_dataset=figures["trained_on_dataset"],
        ),
    )  # fmt: skip


def _head(network: Network) -> nn.Linear:
    return backbones.require_linear(network.model, network.head)


def _training(session: Session, model: Model, left_out: Collection[str]) -> list[tuple[str, int]]:
    """Ids and positions of the training samples, but for those that are left out or forgotten."""
    rows = session.execute(
        select(Sample.sample_id, Sample.position)
        .where(
            Sample.dataset_id == model.dataset_id,
            Sample.split == Split.TRAIN,
            ~tombstones.has(model.id, Sample.sample_id),
            stays(Sample.sample_id, left_out),
        )
        .order_by(Sample.position)
    )
    return [(sample_id, position) for sample_id, position in rows]


def _require_last(network: Network, head: nn.Linear, outputs: Outputs) -> None:
    """Refuse a network that does something with the head's answers, or in whose answers more than
    the features counts."""
    with torch.no_grad():
        again = head(outputs.features.to(network.device)).float().cpu()
    size = TOLERANCE * max(outputs.logits.abs().max().item(), 1e-6)
    if again.shape != outputs.logits.shape or not torch.allclose(again, outputs.logits, 0, size):
        raise JobError(
            f"The network's answers are not those of its head {network.head!r}: something follows "
            "it. A head that is fitted anew must give the logits themselves; leave out what scales "
            "or normalises them, or register the model without `backbone`."
        )


def _answered(fit: softmax_regression.Fit, outputs: Outputs) -> Outputs:
    """The same samples, answered by the fitted head."""
    if not len(outputs.labels):
        return outputs
    logits = outputs.features.double() @ fit.weight.T
    return Outputs(
        outputs.features,
        (logits if fit.bias is None else logits + fit.bias).float(),
        outputs.labels,
    )


def _observed(*, retain: Outputs, holdout: Outputs, test: Outputs) -> Observed:
    nothing = retain.select(torch.zeros_like(retain.labels, dtype=torch.bool))
    seen = test if len(test.labels) else None
    return Observed(forget=nothing, retain=retain, holdout=holdout, test=seen)


def _largest_difference(before: Outputs, after: Outputs) -> float:
    """Between two probabilities of one class."""
    apart = before.logits.double().softmax(1) - after.logits.double().softmax(1)
    return apart.abs().max().item() if len(before.labels) else 0.0
