"""Turns what a dataset stores into what a model takes: images and arrays become tensors.

Shapes: N samples, C channels, H x W pixels.
"""

import math
import os
import struct
import warnings
import zlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch
from PIL import Image
from torch import Tensor

from domain.errors import JobError
from worker.data.parquet import CHANGED, Source
from worker.unlearning.samples import Samples

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "JPEG2000")
"""The formats that may be opened. Not all that Pillow knows: EPS would start Ghostscript."""

BROKEN = (
    OSError, SyntaxError, ValueError, TypeError, IndexError, KeyError, EOFError, OverflowError,
    struct.error, zlib.error, Image.DecompressionBombError, Image.DecompressionBombWarning,
)  # fmt: skip
"""What Pillow's decoders raise on bytes that are not a valid image of reasonable size."""

THREADS = min(os.cpu_count() or 1, 16)
CHUNK = 32
"""Images per thread and chunk."""

warnings.simplefilter("error", Image.DecompressionBombWarning)

Mask = npt.NDArray[np.bool_]


def bad_inputs(column: pa.Array, length: int | None) -> dict[str, Mask]:
    """The inputs that cannot be used, by kind of fault.

    Images are decoded to the last byte: the header of a truncated image is valid.

    Args:
        column: N inputs, as `parquet.Source` gives them.
        length: how many values an array must have; None for images.

    Returns:
        Masks (N,), true where the input is bad.
    """
    missing = column.is_null().to_numpy(zero_copy_only=False)
    if pa.types.is_large_binary(column.type):
        return {"input_missing": missing, "input_undecodable": _undecodable(column)}
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy()
    odd = np.zeros(len(column), dtype=bool)
    values = column.flatten()
    if values.null_count or pa.types.is_floating(values.type):
        unsound = values.is_null().to_numpy(zero_copy_only=False)
        if pa.types.is_floating(values.type):
            unsound |= ~np.isfinite(values.to_numpy(zero_copy_only=False))
        odd[pc.list_parent_indices(column).to_numpy()[unsound]] = True
    return {
        "input_missing": missing,
        "input_wrong_length": ~missing & (lengths != length),
        "input_not_finite": odd,
    }


def array_length(column: pa.Array, input_shape: Sequence[int] | None) -> int | None:
    """How many values each array must have: from the shape, or else from the first array.

    None for images, and while neither is known.
    """
    if pa.types.is_large_binary(column.type):
        return None
    if input_shape is not None:
        return math.prod(input_shape)
    lengths = pc.list_value_length(column).drop_null()
    return lengths[0].as_py() if len(lengths) else None


def decode(
    column: pa.Array | pa.ChunkedArray,
    preprocessing: dict[str, Any],
    input_shape: Sequence[int] | None,
) -> Tensor:
    """Inputs as one tensor on the CPU, not yet scaled.

    Returns:
        Images: (N, C, H, W) uint8, in the mode and size that `preprocessing` names (bilinear,
        antialiased). Arrays: (N, *input_shape), or (N, length) without a shape, in the file's type;
        unsigned integers of 16 bits or more become signed.

    Raises:
        JobError: an input cannot be used, or images differ in size and are not resized.
    """
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if column.null_count:
        raise JobError(CHANGED)
    if pa.types.is_large_binary(column.type):
        return _images(column, preprocessing)
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
    """The rows' decoded inputs with their labels. Raises JobError as `decode` does."""
    labels = torch.from_numpy(table["label"].to_numpy().astype(np.int64))
    return Samples(decode(table["input"], preprocessing, input_shape), labels)


def preparer(preprocessing: dict[str, Any]) -> Callable[[Tensor], Tensor]:
    """The function that turns a batch from `decode` into the model's input, on its device.

    (x * scale - mean) / std in float32, per channel (dimension 1); without a scale, bytes are
    divided by 255 and floats are left as they are. Integers of more than 8 bits are token ids:
    they become int64 and are not scaled.
    """
    scale = preprocessing.get("scale")
    mean, std = preprocessing.get("mean") or [0.0], preprocessing.get("std") or [1.0]

    @cache
    def constants(device: torch.device) -> tuple[Tensor, Tensor]:
        return torch.tensor(mean, device=device), torch.tensor(std, device=device)

    def prepare(inputs: Tensor) -> Tensor:
        if not inputs.is_floating_point() and inputs.element_size() > 1:
            return inputs.long()
        default = 1 / 255 if inputs.dtype is torch.uint8 else 1.0
        values = inputs.float() * (default if scale is None else scale)
        shift, spread = (_per_channel(numbers, values) for numbers in constants(values.device))
        return (values - shift) / spread

    return prepare


def _per_channel(numbers: Tensor, values: Tensor) -> Tensor:
    if len(numbers) not in (1, values.shape[1]):
        raise ValueError(
            f"preprocessing names {len(numbers)} channels in mean or std, but the inputs have "
            f"{values.shape[1]}; register the model with one value per channel"
        )
    return numbers.view(-1, *[1] * (values.ndim - 2))


def _undecodable(column: pa.Array) -> Mask:
    bad = np.zeros(len(column), dtype=bool)

    def look(chunk: Iterable[int]) -> None:
        for index in chunk:
            try:
                with _opened(column, index) as image:
                    image.load()
            except BROKEN:
                bad[index] = True

    _in_threads(look, np.flatnonzero(column.is_valid().to_numpy(zero_copy_only=False)).tolist())
    return bad


def _images(column: pa.Array, preprocessing: dict[str, Any]) -> Tensor:
    mode, resize = preprocessing.get("mode") or "RGB", preprocessing.get("resize")
    size = (resize[1], resize[0]) if resize else None  # Pillow puts the width first
    if len(column) == 0:
        return torch.empty((0, len(mode), *(resize or (0, 0))), dtype=torch.uint8)
    first = _pixels(column, 0, mode, size)
    pixels = np.empty((len(column), *first.shape), dtype=np.uint8)  # (N, C, H, W)
    pixels[0] = first

    def fill(chunk: Iterable[int]) -> None:
        for index in chunk:
            image = _pixels(column, index, mode, size)
            if image.shape != first.shape:
                raise JobError(
                    "The images differ in size; set the model's preprocessing.resize to the size "
                    "it was trained with."
                )
            pixels[index] = image

    _in_threads(fill, range(1, len(column)))
    return torch.from_numpy(pixels)


def _pixels(
    column: pa.Array, index: int, mode: str, size: tuple[int, int] | None
) -> npt.NDArray[np.uint8]:
    """(C, H, W) of one image."""
    try:
        with _opened(column, index) as image:
            converted = image.convert(mode)
    except BROKEN as error:
        raise JobError(CHANGED) from error
    if size is not None and converted.size != size:
        converted = converted.resize(size, Image.Resampling.BILINEAR)
    rows = np.asarray(converted, dtype=np.uint8).reshape(*converted.size[::-1], len(mode))
    return rows.transpose(2, 0, 1)


def _opened(column: pa.Array, index: int) -> Image.Image:
    return Image.open(BytesIO(column[index].as_buffer()), formats=FORMATS)


def _in_threads(work: Callable[[Sequence[int]], None], indices: Sequence[int]) -> None:
    """Do the work in threads, chunk by chunk: Pillow releases Python's lock while it decodes."""
    chunks = [indices[start : start + CHUNK] for start in range(0, len(indices), CHUNK)]
    with ThreadPoolExecutor(THREADS) as pool:
        for _ in pool.map(work, chunks):
            pass


_SIGNED = {"uint16": "int32", "uint32": "int64", "uint64": "int64"}


def _arrays(column: pa.Array, input_shape: Sequence[int] | None) -> Tensor:
    length = array_length(column, input_shape) or 0
    if any(mask.any() for mask in bad_inputs(column, length).values()):
        raise JobError(CHANGED)
    values = column.flatten().to_numpy(zero_copy_only=False)
    values = values.astype(_SIGNED.get(values.dtype.name, values.dtype), copy=True)
    return torch.from_numpy(values).reshape(len(column), *(input_shape or [length]))
