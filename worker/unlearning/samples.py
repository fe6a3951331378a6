"""Labelled samples, kept as they are stored and cut into batches."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Samples:
    """Labelled samples as they are stored: uint8 images, floats or token ids.

    Nothing is scaled here; `Network` does that batch by batch. Labels stay on the CPU: drawing
    batches by them there avoids waiting for a GPU.

    Raises:
        ValueError: the labels are not (N,) int64, or inputs and labels differ in length.
    """

    inputs: Tensor
    """(N, ...) any dtype; on the CPU, or where `Network.resident` has put them."""

    labels: Tensor
    """(N,) int64, on the CPU."""

    def __post_init__(self) -> None:
        if self.labels.ndim != 1 or self.labels.dtype != torch.int64:
            shape = tuple(self.labels.shape)
            raise ValueError(f"labels must be (N,) int64, got {shape} {self.labels.dtype}")
        if len(self.inputs) != len(self.labels):
            raise ValueError(f"{len(self.inputs)} inputs, but {len(self.labels)} labels")

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, chosen: Tensor) -> "Samples":
        """The samples at these indices (int64), or where this mask (N,) is true."""
        return Samples(rows(self.inputs, chosen), self.labels[chosen])

    def batches(
        self, batch_size: int, generator: torch.Generator | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Inputs and labels in batches, each sample once; shuffled if a generator is given."""
        for chosen in batch_indices(len(self), batch_size, generator):
            yield rows(self.inputs, chosen), self.labels[chosen]


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on that device. The host does not wait for a copy to a GPU."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def rows(tensor: Tensor, chosen: Tensor) -> Tensor:
    """The rows of a tensor (N, ...) on any device at these indices, which are on the CPU."""
    return tensor[moved(chosen, tensor.device)]


def classes(labels: Tensor) -> list[int]:
    """The classes that occur among `labels` (N,), in order."""
    return sorted(set(labels.tolist()))


def skew(labels: Tensor, class_counts: Tensor) -> float:
    """How far the class mix of `labels` (N,) is from that of `class_counts` (C,): total variation.

    In [0, 1]: 0 for the same mix, 1 for classes that the counts lack.
    """
    counts = (labels.bincount(minlength=len(class_counts)), class_counts.cpu())
    mine, theirs = (each.double() / each.sum().clamp_min(1) for each in counts)
    return ((mine - theirs).abs().sum() / 2).clamp_max(1).item()


def batch_indices(
    count: int, batch_size: int, generator: torch.Generator | None = None
) -> Iterator[Tensor]:
    """Indices 0..count-1 in batches of nearly equal size, at most `batch_size`.

    Equal sizes keep batches of one out of batch normalisation unless there is only one sample.
    """
    if count == 0:
        return
    order = torch.arange(count)
    if generator is not None:
        order = torch.randperm(count, generator=generator)
    yield from order.tensor_split(-(-count // batch_size))


def class_balanced(labels: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Indices of at most `count` samples, with equal shares of every class present.

    A class with too few samples contributes all of them, and the others share the remainder.

    Args:
        labels: (N,) int64.
    """
    order = torch.randperm(len(labels), generator=generator)
    shuffled = labels[order]
    rank = torch.empty_like(shuffled)  # (N,) place of a sample within its own class
    for label in classes(shuffled):
        mine = shuffled == label
        rank[mine] = torch.arange(int(mine.sum()))
    return order[rank.argsort(stable=True)[:count]]
