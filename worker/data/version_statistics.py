"""The statistics of a version's features and answers, as one safetensors file in the store.

Shapes: C classes, Q quantiles.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from worker.store.artifacts import Store
from worker.unlearning.alignment import Moments, alignment, eigenspace
from worker.unlearning.evaluation import Outputs, default_k
from worker.unlearning.targets import margins

QUANTILES = 101
MOMENTS = "moments."


@dataclass(frozen=True, slots=True)
class Statistics:
    """The retain features' moments, and how the version sees the hold-out."""

    moments: Moments
    """Moments of the features of all retain samples."""

    class_counts: Tensor
    """(C,) int64, the number of retain samples per class."""

    holdout_losses: Tensor
    """(Q,) float64, equally spaced quantiles of the cross-entropy of hold-out samples, in nats."""

    holdout_margins: Tensor
    """(Q,) float64, the same for the margin of the true class's logit over the best other one."""

    holdout_alignment: Tensor
    """(C,) float64, mean DA of each class's hold-out samples; NaN for a class without any."""


def describe(holdout: Outputs, moments: Moments, class_counts: Tensor) -> Statistics:
    """The statistics of the network that produced these hold-out outputs.

    Args:
        moments: of the retain features of the same network, on the CPU.
        class_counts: (C,) int64.

    Without hold-out samples, all figures of theirs are NaN.
    """
    levels = torch.linspace(0, 1, QUANTILES, dtype=torch.float64)
    da = alignment(holdout.features.double(), eigenspace(moments, k=default_k(class_counts)))
    by_class = torch.full((len(class_counts),), torch.nan, dtype=torch.float64)
    for label in holdout.labels.unique():  # type: ignore[no-untyped-call]
        by_class[label] = da[holdout.labels == label].mean()

    def quantiles(values: Tensor) -> Tensor:
        return values.quantile(levels) if len(values) else torch.full_like(levels, torch.nan)

    return Statistics(
        moments=moments,
        class_counts=class_counts,
        holdout_losses=quantiles(holdout.losses()),
        holdout_margins=quantiles(margins(holdout.logits.double(), holdout.labels)),
        holdout_alignment=by_class,
    )


def write(store: Store, statistics: Statistics) -> str:
    """Store the statistics and return their digest."""
    tensors = {
        "class_counts": statistics.class_counts,
        "holdout_losses": statistics.holdout_losses,
        "holdout_margins": statistics.holdout_margins,
        "holdout_alignment": statistics.holdout_alignment,
        **{MOMENTS + name: value for name, value in statistics.moments.to_tensors().items()},
    }

    def save(path: Path) -> None:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)

    return store.put(save)


def read(store: Store, digest: str) -> Statistics:
    """The statistics. Raises JobError when the file is missing or damaged."""
    tensors = load_file(store.path(digest))
    moments = {
        name.removeprefix(MOMENTS): tensors.pop(name)
        for name in list(tensors)
        if name.startswith(MOMENTS)
    }
    return Statistics(moments=Moments.from_tensors(moments), **tensors)
