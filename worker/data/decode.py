"""Turns what a dataset stores into what a model takes: images and arrays become tensors.

Shapes: N samples, C channels, H x W pixels.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from domain.errors import JobError
from domain.preprocessing import InputKind
from worker.data import images
from worker.data.inputs import array_length, bad_inputs, lists
from worker.data.parquet import CHANGED, Source
from worker.unlearning.samples import Samples


def decode(
    column: pa.Array | pa.ChunkedArray,
    preprocessing: dict[str, Any],
    input_shape: Sequence[int] | None,
) -> Tensor:
    """Inputs as one tensor on the CPU, not yet scaled.

    Returns:
        Images: (N, C, H, W) uint8, in the mode and size that `preprocessing` names (bilinear,
        antialiased). Arrays: (N, *input_shape), or (N, length) without a shape, in the file's type;
        unsigned integers of 16 bits or more become signed. Of K columns, (N, K, length) int64.

    Raises:
        JobError: an input cannot be used, or images differ in size and are not resized.
    """
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if column.null_count:
        raise JobError(CHANGED)
    if pa.types.is_large_binary(column.type):
        return torch.from_numpy(images.pixels(column, preprocessing))
    return _arrays(column, input_shape)


def fetch(
    source: Source, samples: Sequence[tuple[str, int]], preprocessing: dict[str, Any]
) -> Samples:
    """The samples with these ids and positions, in this order, straight from the dataset.

    Raises:
        JobError: a different sample is at one of the positions.
    """
    table = source.take([position for _, position in samples], ("sample_id", "input", "label"))
    if table["sample_id"].to_pylist() != [sample_id for sample_id, _ in samples]:
        raise JobError(CHANGED)
    return labelled(table, preprocessing, source.input_shape)


def labelled(
    table: pa.Table, preprocessing: dict[str, Any], input_shape: Sequence[int] | None
) -> Samples:
    """The rows' decoded inputs, with their labels in the model's order.

    Every sample that a job sees comes through here, so nothing else needs to translate labels.
    Raises JobError as `decode` does.
    """
    labels = torch.from_numpy(table["label"].to_numpy().astype(np.int64))
    inputs = decode(table["input"], preprocessing, input_shape)
    return Samples(inputs, outputs_for(labels, preprocessing))


def outputs_for(labels: Tensor, preprocessing: dict[str, Any]) -> Tensor:
    """The model's outputs (N,) for labels (N,) of the dataset: the same, unless it has names for
    its classes in another order, and its registration asked to map them.

    Raises JobError if a label has no name.
    """
    order = preprocessing.get("labels")
    if order is None:
        return labels
    if len(labels) and labels.max() >= len(order):
        raise JobError(CHANGED)
    return torch.tensor(order)[labels]


def preparer(preprocessing: dict[str, Any], kind: InputKind | None) -> Callable[[Tensor], Tensor]:
    """The function that turns a batch from `decode` into the model's input, on its device.

    Images and pixels: (x * scale - mean) / std in float32, per channel (dimension 1); without a
    scale, bytes are divided by 255. Tokens become int64, and features float32.

    Args:
        kind: the dataset's; None if an older release registered it.
    """
    scale = preprocessing.get("scale")
    mean, std = preprocessing.get("mean") or [0.0], preprocessing.get("std") or [1.0]

    @cache
    def constants(device: torch.device) -> tuple[Tensor, Tensor]:
        return torch.tensor(mean, device=device), torch.tensor(std, device=device)

    def prepare(inputs: Tensor) -> Tensor:
        meant = guessed_kind(inputs.dtype) if kind is None else kind
        if meant is InputKind.TOKENS:
            return inputs.long()
        if meant is InputKind.FEATURES:
            return inputs.float()
        default = 1 / 255 if inputs.dtype is torch.uint8 else 1.0
        values = inputs.float() * (default if scale is None else scale)
        shift, spread = (_per_channel(numbers, values) for numbers in constants(values.device))
        return (values - shift) / spread

    return prepare


def guessed_kind(stored: torch.dtype) -> InputKind:
    """What older releases took inputs of this type for: integers of more than 8 bits are tokens.

    Datasets that they registered declare no kind. Images are treated as pixels are.
    """
    wide = not stored.is_floating_point and stored.itemsize > 1
    return InputKind.TOKENS if wide else InputKind.PIXELS


def _per_channel(numbers: Tensor, values: Tensor) -> Tensor:
    if len(numbers) not in (1, values.shape[1]):
        raise ValueError(
            f"preprocessing names {len(numbers)} channels in mean or std, but the inputs have "
            f"{values.shape[1]}; register the model with one value per channel"
        )
    return numbers.view(-1, *[1] * (values.ndim - 2))


HIGHEST = np.iinfo(np.int64).max
_SIGNED = {"uint16": "int32", "uint32": "int64", "uint64": "int64"}


def _arrays(column: pa.Array, input_shape: Sequence[int] | None) -> Tensor:
    length = array_length(column, input_shape) or 0
    if any(mask.any() for mask in bad_inputs(column, length).values()):
        raise JobError(CHANGED)
    parts = []
    for part in lists(column):
        values = part.flatten().to_numpy(zero_copy_only=False)
        signed = _SIGNED.get(values.dtype.name, values.dtype)
        if values.dtype == np.uint64 and (values > HIGHEST).any():
            signed = "float64"  # instead of negative numbers
        values = values.astype(signed, copy=True)
        parts.append(torch.from_numpy(values).reshape(len(column), *(input_shape or [length])))
    return torch.stack(parts, dim=1) if pa.types.is_struct(column.type) else parts[0]
