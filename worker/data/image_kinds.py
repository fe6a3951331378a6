"""Recognises images that have more to them than `Image.convert` keeps, or that it changes silently.

The kinds are those of `domain.preprocessing.IMAGE_KINDS`, which says what can be done with each.
"""

import struct
from functools import lru_cache
from io import BytesIO
from typing import cast

import numpy as np
from PIL import Image, ImageCms
from PIL.ImageFile import ImageFile, _Tile

ORIENTATION = 0x0112
"""The EXIF tag that says how an image is to be turned."""

SAME_COLOR = 12
"""The largest difference, of 255, between a colour profile and sRGB that does not count; a plain
gamma of 2.2 differs from sRGB by 9 in the dark."""

SRGB_GAMMA, SAME_GAMMA = 1 / 2.2, 0.01
CODESTREAM = b"\xff\x4f\xff\x51"
"""How the codestream of a JPEG 2000 file begins; its depth is `DEPTH_AT` bytes further on."""

DEPTH_AT = 42
BROKEN_METADATA = (
    OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, EOFError, struct.error,
)  # fmt: skip


def orientation(image: Image.Image) -> int:
    """How the image is to be turned, 1 to 8 as EXIF counts; 1 if it does not say. Ask before the
    pixels are loaded: a TIFF file turns itself then. Asking a PNG loads them."""
    try:
        found = image.getexif().get(ORIENTATION, 1)
    except BROKEN_METADATA:
        return 1
    return found if found in range(2, 9) else 1


def sixteen_bit(image: ImageFile, data: memoryview) -> bool:
    """Whether channels have 16 bits, or more than 8 in a JPEG 2000 or PPM file. To be asked before
    the pixels are loaded: then nothing is left of it."""
    if image.format == "JPEG2000":
        at = bytes(data).find(CODESTREAM) + DEPTH_AT
        return at < len(data) and (data[at] & 0x7F) + 1 > 8
    if image.format == "PPM":
        return image.mode != "F" and any(
            tile.args == "I;16B" or _above_a_byte(tile) for tile in image.tile
        )
    raw = repr(image.tile)
    return image.mode != "F" and ";16" in raw and "I;16S" not in raw


def has_alpha(image: Image.Image) -> bool:
    """Whether a loaded image has pixels that are not opaque."""
    if "transparency" in image.info and not image.mode.startswith("I"):
        image = image.convert("RGBA")
    if image.mode in ("RGBa", "La"):
        image = image.convert("RGBA" if image.mode == "RGBa" else "LA")
    return image.mode in ("RGBA", "LA", "PA") and bool(
        np.asarray(image.getchannel("A")).min() < 255
    )


def profile_matters(image: Image.Image) -> bool:
    """Whether the image has a colour profile by which it looks different from sRGB."""
    profile = image.info.get("icc_profile")
    return isinstance(profile, bytes) and bool(profile) and _differs(profile, image.mode)


def gamma_matters(image: Image.Image) -> bool:
    """Whether a PNG file without a profile has another gamma than sRGB."""
    gamma = image.info.get("gamma")
    if not isinstance(gamma, float) or {"srgb", "icc_profile"} & image.info.keys():
        return False
    return abs(gamma - SRGB_GAMMA) > SAME_GAMMA


def in_srgb(image: Image.Image, profile: ImageCms.ImageCmsProfile) -> Image.Image:
    """The image with its colours as this profile means them, in RGB, or RGBA if it is transparent.

    Args:
        profile: one that is for greys if the image is grey, for CMYK if it is in CMYK, else for
            RGB.
    """
    grey, alpha = _is_grey(image.mode), None
    if image.has_transparency_data:
        image = image.convert("LA" if grey else "RGBA")
        alpha = image.getchannel("A")
    if image.mode != "CMYK":
        image = image.convert("L" if grey else "RGB")
    converted = ImageCms.profileToProfile(
        image, profile, ImageCms.createProfile("sRGB"), outputMode="RGB"
    )
    seen = cast("Image.Image", converted)  # None only where an image is changed in place
    if alpha is not None:
        seen.putalpha(alpha)
    return seen


def _is_grey(mode: str) -> bool:
    return mode[0] in "1LI" and mode != "LAB"


@lru_cache(maxsize=256)
def _differs(profile: bytes, mode: str) -> bool:
    space = {"CMYK": "CMYK"}.get(mode, "GRAY" if _is_grey(mode) else "RGB ")
    try:
        opened = ImageCms.ImageCmsProfile(BytesIO(profile))
        if opened.profile.xcolor_space != space:
            return False  # of another kind of image: nobody can apply it
        if space == "CMYK":
            return True
        colors = _colors(grey=space == "GRAY")
        seen = in_srgb(colors, opened)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return False  # damaged: nobody can apply it
    return any(
        abs(was - now) > SAME_COLOR
        for was, now in zip(colors.convert("RGB").tobytes(), seen.tobytes(), strict=True)
    )


def _colors(*, grey: bool) -> Image.Image:
    """One pixel of each of some colours over the whole range."""
    steps = range(0, 256, 51)
    if grey:
        return Image.frombytes("L", (256, 1), bytes(range(256)))
    colors = bytes(part for red in steps for green in steps for blue in steps
                   for part in (red, green, blue))  # fmt: skip
    return Image.frombytes("RGB", (len(colors) // 3, 1), colors)


def _above_a_byte(tile: _Tile) -> bool:
    """Whether the highest value that the header of a PPM file names is more than a byte."""
    return isinstance(tile.args, tuple) and any(
        isinstance(each, int) and each > 255 for each in tile.args
    )
