"""Decodes the encoded images of a dataset.

Shapes: N images, C channels, H x W pixels.
"""

import os
import struct
import warnings
import zlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL import Image

from domain.errors import JobError
from worker.data.parquet import CHANGED

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


def undecodable(column: pa.Array) -> Mask:
    """A mask (N,), true where an image cannot be decoded to its last byte; the header of a
    truncated image is valid."""
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


def pixels(column: pa.Array, preprocessing: dict[str, Any]) -> npt.NDArray[np.uint8]:
    """The images (N, C, H, W) in the mode and size that `preprocessing` names.

    Raises:
        JobError: an image cannot be decoded, or they differ in size and are not resized.
    """
    mode, resize = preprocessing.get("mode") or "RGB", preprocessing.get("resize")
    size = (resize[1], resize[0]) if resize else None  # Pillow puts the width first
    if len(column) == 0:
        return np.empty((0, len(mode), *(resize or (0, 0))), dtype=np.uint8)
    first = _pixels(column, 0, mode, size)
    decoded = np.empty((len(column), *first.shape), dtype=np.uint8)  # (N, C, H, W)
    decoded[0] = first

    def fill(chunk: Iterable[int]) -> None:
        for index in chunk:
            image = _pixels(column, index, mode, size)
            if image.shape != first.shape:
                raise JobError(
                    "The images differ in size; set the model's preprocessing.resize to the size "
                    "it was trained with."
                )
            decoded[index] = image

    _in_threads(fill, range(1, len(column)))
    return decoded


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
