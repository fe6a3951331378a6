"""Decodes the encoded images of a dataset.

Shapes: N images, C channels, H x W pixels.
"""

import os
import struct
import threading
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL import Image, ImageCms
from PIL.ImageFile import ImageFile

from domain.errors import JobError
from domain.preprocessing import IMAGE_KINDS
from worker import budgets
from worker.data import image_kinds
from worker.data.parquet import CHANGED

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "JPEG2000")
"""The formats that may be opened. Not all that Pillow knows: EPS would start Ghostscript."""

BROKEN = (
    OSError, SyntaxError, ValueError, TypeError, IndexError, KeyError, EOFError, OverflowError,
    struct.error, zlib.error, Image.DecompressionBombError, Image.DecompressionBombWarning,
)  # fmt: skip
"""What Pillow's decoders raise on bytes that are not a valid image of reasonable size."""

THREADS = min(os.cpu_count() or 1, 16)
LARGEST = 2**25
"""The most pixels of an image that is resized to a shortest edge: it may be long and narrow."""

CHUNK = 32
"""Images per thread and chunk."""

TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What each EXIF orientation asks for; all but two undo themselves."""

BACK = {
    Image.Transpose.ROTATE_90: Image.Transpose.ROTATE_270,
    Image.Transpose.ROTATE_270: Image.Transpose.ROTATE_90,
}

PIXELS_AT_ONCE = max(2**24, THREADS * 2**21)
"""In all images that are being decoded in threads: each pixel takes up to sixteen bytes."""

ALONE_BYTES = 240 * 2**20
"""Memory, beyond what is in use, that decoding an image may take that is decoded alone."""

SCANS = 200
"""Of one JPEG. Each goes through all of its pixels, and can be a few bytes."""

Image.MAX_IMAGE_PIXELS = budgets.IMAGE_PIXELS
warnings.simplefilter("error", Image.DecompressionBombWarning)

decoding = budgets.Weighed(PIXELS_AT_ONCE)
pooled = threading.local()

Mask = npt.NDArray[np.bool_]


def examined(
    column: pa.Array, allowed: budgets.Expansion | None = None
) -> tuple[Mask, dict[str, Mask]]:
    """Decode every image, and see what it is.

    Args:
        allowed: how many pixels there may be.

    Returns:
        A mask (N,), true where an image cannot be decoded to its last byte (the header of a
        truncated image is valid), and for each of IMAGE_KINDS a mask (N,) of such images.

    Raises:
        JobError: there are more pixels.
    """
    bad = np.zeros(len(column), dtype=bool)
    kinds = {kind: np.zeros(len(column), dtype=bool) for kind in IMAGE_KINDS}

    def look(index: int) -> None:
        try:
            with _opened(column, index) as image:
                if allowed is not None:
                    allowed.spend(image.width * image.height)
                found = _kinds(image, _encoded(column, index))
        except BROKEN:
            bad[index] = True
            return
        for kind in found:
            kinds[kind][index] = True

    valid = np.flatnonzero(column.is_valid().to_numpy(zero_copy_only=False)).tolist()
    bad[_in_threads(look, valid)] = True
    return bad, kinds


def _kinds(image: ImageFile, data: memoryview) -> list[str]:
    """Which of IMAGE_KINDS an image is, opened and not loaded yet; loads it."""
    deep = image_kinds.sixteen_bit(image, data)
    turned = _loaded(image) != 1
    found = {
        "exif_orientation": turned,
        "alpha": image_kinds.has_alpha(image),
        "several_frames": getattr(image, "is_animated", False),
        "cmyk": image.mode == "CMYK",
        "color_profile": image_kinds.profile_matters(image),
        "gamma": image_kinds.gamma_matters(image),
        "sixteen_bit": deep,
        "not_bytes": not deep and image.mode[0] in "IF",
        "lab": image.mode == "LAB",
    }
    return [kind for kind, is_one in found.items() if is_one]


def pixels(column: pa.Array, preprocessing: dict[str, Any]) -> npt.NDArray[np.uint8]:
    """The images (N, C, H, W), read as `preprocessing` says.

    Without a choice for one of IMAGE_KINDS, images are read as `Image.convert` reads them.

    Raises:
        JobError: an image cannot be decoded, or they differ in size and are not resized.
    """
    mode = preprocessing.get("mode") or "RGB"
    if len(column) == 0:
        size = preprocessing.get("crop") or preprocessing.get("resize")
        return np.empty((0, len(mode), *(size if isinstance(size, list) else (0, 0))), np.uint8)
    first = _pixels(column, 0, mode, preprocessing)
    decoded = np.empty((len(column), *first.shape), dtype=np.uint8)  # (N, C, H, W)
    decoded[0] = first

    def fill(index: int) -> None:
        image = _pixels(column, index, mode, preprocessing)
        if image.shape != first.shape:
            raise JobError(
                "The images differ in size; set the model's preprocessing.resize to the height "
                "and width it was trained with, or to a shortest edge and set crop as well."
            )
        decoded[index] = image

    if _in_threads(fill, range(1, len(column))):
        raise JobError(CHANGED)
    return decoded


def _pixels(
    column: pa.Array, index: int, mode: str, preprocessing: dict[str, Any]
) -> npt.NDArray[np.uint8]:
    """(C, H, W) of one image."""
    try:
        with _opened(column, index) as image:
            converted = _sized(_converted(image, mode, preprocessing), preprocessing)
    except BROKEN as error:
        raise JobError(CHANGED) from error
    rows = np.asarray(converted, dtype=np.uint8).reshape(*converted.size[::-1], len(mode))
    return rows.transpose(2, 0, 1)


def _converted(file: ImageFile, mode: str, preprocessing: dict[str, Any]) -> Image.Image:
    """The image in this mode, with what its kinds were chosen to be."""
    image: Image.Image = file
    stored, wanted = _loaded(file), preprocessing.get("orientation")
    if wanted is not None and stored != 1:
        image = _turned(image, TURNS[stored], upright=wanted == "exif")
    if preprocessing.get("sixteen_bit") == "high_byte" and image.mode[0] == "I":
        told, image = image.info, Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        image.info = told
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    if preprocessing.get("color_profile") == "srgb" and image_kinds.profile_matters(image):
        profile = ImageCms.ImageCmsProfile(BytesIO(image.info["icc_profile"]))
        image = image_kinds.in_srgb(image, profile)
    ground = preprocessing.get("alpha")
    if ground in ("white", "black") and image.has_transparency_data:
        over = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", over.size, ground), over)
    return image.convert(mode)


def _loaded(image: ImageFile) -> int:
    """Load the pixels to their end; how the image is to be turned, as EXIF counts."""
    if image.format != "TIFF":  # which forgets how it is turned once it is loaded
        image.load()
    stored = image_kinds.orientation(image)
    image.load()
    return stored


def _turned(image: Image.Image, how: Image.Transpose, *, upright: bool) -> Image.Image:
    """The loaded image turned as its EXIF data say, or as it is stored; a TIFF is turned."""
    if image.format == "TIFF":
        return image if upright else image.transpose(BACK.get(how, how))
    return image.transpose(how) if upright else image


def _sized(image: Image.Image, preprocessing: dict[str, Any]) -> Image.Image:
    """The image resized, then cut out of the centre as the processors of transformers do."""
    size = _size(image, preprocessing.get("resize"))
    if image.size != size:
        how = preprocessing.get("interpolation") or "bilinear"
        image = image.resize(size, Image.Resampling[how.upper()])
    if preprocessing.get("crop"):
        height, width = preprocessing["crop"]
        left, top = (image.width - width) // 2, (image.height - height) // 2
        image = image.crop((left, top, left + width, top + height))
    return image


def _size(image: Image.Image, wanted: Sequence[int] | dict[str, int] | None) -> tuple[int, int]:
    """The width and height to resize to, in Pillow's order."""
    if not wanted:
        return image.size
    if not isinstance(wanted, dict):
        return wanted[1], wanted[0]
    short, long = sorted(image.size)
    edge = wanted["shortest_edge"]
    other = int(edge * long / short)
    if edge * other > LARGEST:
        raise JobError(
            f"An image of {image.width} x {image.height} pixels would have {other} x {edge}; set "
            "preprocessing.resize to a height and a width instead of a shortest edge."
        )
    return (edge, other) if image.width <= image.height else (other, edge)


@contextmanager
def _opened(column: pa.Array, index: int) -> Iterator[ImageFile]:
    """The image with its header read. Waits until those in other threads leave it room.

    Raises:
        Alone: it is not to be decoded beside others.
        ValueError: its format is used to waste time.
    """
    data = _encoded(column, index)
    with Image.open(BytesIO(data), formats=FORMATS) as image:
        pixels = image.width * image.height
        if getattr(pooled, "here", False) and _is_heavy(image.format, pixels):
            raise Alone
        if image.format == "JPEG" and data.tobytes().count(b"\xff\xda") > SCANS:
            raise ValueError("too many scans")
        with decoding.holding(pixels):
            yield image


def _encoded(column: pa.Array, index: int) -> memoryview:
    """The bytes of an image. Not `column[index]`: where there is no memory for the copy that it
    makes, Arrow ends the process."""
    _, offsets, data = column.buffers()
    start, end = np.frombuffer(offsets, np.int64)[column.offset + index :][:2].tolist()
    return memoryview(data or b"")[start:end]


class Alone(Exception):
    """The image is to be decoded while no other is, because it may take much memory."""


def _is_heavy(kind: str | None, pixels: int) -> bool:
    """Whether the memory that decoding takes may be much more than the pixels."""
    return kind in ("TIFF", "JPEG2000") or (kind == "WEBP" and pixels > 2**22)


def _in_threads(work: Callable[[int], None], indices: Sequence[int]) -> list[int]:
    """Do the work in threads, chunk by chunk: Pillow releases Python's lock while it decodes. Then
    do what is to be done alone, within a limit. Threads know no limit: where memory ends, Python's
    own ways of waiting for them fail.

    Returns:
        Those for which there was too little memory.
    """
    chunks = [indices[start : start + CHUNK] for start in range(0, len(indices), CHUNK)]
    with ThreadPoolExecutor(THREADS, initializer=lambda: setattr(pooled, "here", True)) as pool:
        alone = [index for left in pool.map(partial(_left, work), chunks) for index in left]
    too_large = []
    for index in alone:
        try:
            with budgets.within(ALONE_BYTES):
                work(index)
        except MemoryError:
            too_large.append(index)
    return too_large


def _left(work: Callable[[int], None], chunk: Sequence[int]) -> list[int]:
    """Do the work, and give back what is to be done alone."""
    left = []
    for index in chunk:
        try:
            work(index)
        except Alone:
            left.append(index)
    return left
