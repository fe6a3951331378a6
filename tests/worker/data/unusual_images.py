"""Image files that can be read in more than one way, one of each kind."""

import struct
import zlib
from collections.abc import Callable
from io import BytesIO

import numpy as np
from PIL import Image

Pixels = np.ndarray


def saved(image: Image.Image, kind: str, **how: object) -> bytes:
    file = BytesIO()
    image.save(file, kind, **how)
    return file.getvalue()


def turned(pixels: Pixels, orientation: int = 6, kind: str = "JPEG", **how: object) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return saved(Image.fromarray(pixels), kind, exif=exif, **how)


def deep_png(pixels: Pixels) -> bytes:
    """16 bits per channel, (H, W) grey or (H, W, 3) colour."""
    height, width = pixels.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    head = struct.pack(">IIBBBBB", width, height, 16, 2 if pixels.ndim == 3 else 0, 0, 0, 0)
    parts = [_chunk(b"IHDR", head), _chunk(b"IDAT", zlib.compress(rows)), _chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def with_chunk(png: bytes, name: bytes, data: bytes) -> bytes:
    """The PNG file with one more chunk after its header."""
    return png[:33] + _chunk(name, data) + png[33:]


SRGB = ((0.4361, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7141))
ADOBE = ((0.6097, 0.3111, 0.0195), (0.2053, 0.6257, 0.0609), (0.1492, 0.0632, 0.7446))


def profile(gamma: float, primaries: tuple[tuple[float, ...], ...] | None = SRGB) -> bytes:
    """A colour profile with this gamma and these primaries; without primaries, of greys."""

    def number(value: float) -> bytes:
        return struct.pack(">i", round(value * 65536))

    def xyz(*values: float) -> bytes:
        return b"XYZ \0\0\0\0" + b"".join(map(number, values))

    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"
    if primaries is None:
        tags = {b"wtpt": xyz(0.9642, 1, 0.8249), b"kTRC": curve}
    else:
        red, green, blue = primaries
        tags = {
            b"wtpt": xyz(0.9642, 1, 0.8249),
            b"rXYZ": xyz(*red),
            b"gXYZ": xyz(*green),
            b"bXYZ": xyz(*blue),
            **dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve),
        }
    table, body, at = struct.pack(">I", len(tags)), b"", 128 + 4 + 12 * len(tags)
    for name, data in tags.items():
        table += name + struct.pack(">II", at + len(body), len(data))
        body += data
    head = struct.pack(">I4xI", 128 + len(table) + len(body), 0x02400000)
    head += b"mntr" + (b"GRAY" if primaries is None else b"RGB ") + b"XYZ " + bytes(12) + b"acsp"
    return (head + bytes(28) + xyz(0.9642, 1, 0.8249)[8:] + bytes(48))[:128] + table + body


def see_through(pixels: Pixels) -> bytes:
    """The pixels on the left, hidden ones of another colour on the right."""
    alpha = np.full(pixels.shape[:2], 255, np.uint8)
    alpha[:, pixels.shape[1] // 2 :] = 0
    return saved(Image.fromarray(np.dstack([pixels, alpha])), "PNG")


def in_palette(pixels: Pixels) -> bytes:
    image = Image.fromarray(pixels).quantize(16)
    return saved(image, "PNG", transparency=int(np.asarray(image)[0, 0]))


def film(pixels: Pixels, kind: str) -> bytes:
    frames = [Image.fromarray(each) for each in (pixels, 255 - pixels)]
    return saved(frames[0], kind, save_all=True, append_images=frames[1:])


UNUSUAL: dict[str, tuple[Callable[[Pixels], bytes], ...]] = {
    "exif_orientation": (
        turned,
        lambda pixels: turned(pixels, 3, "PNG"),
        lambda pixels: turned(pixels, 8, "TIFF"),
        lambda pixels: turned(pixels, 2, "WEBP"),
    ),
    "alpha": (
        see_through,
        in_palette,
        lambda pixels: saved(
            Image.fromarray(pixels[..., 0]), "PNG", transparency=int(pixels[0, 0, 0])
        ),
        lambda pixels: saved(Image.merge("LA", [Image.fromarray(pixels[..., 0])] * 2), "PNG"),
    ),
    "several_frames": tuple(
        lambda pixels, kind=kind: film(pixels, kind)
        for kind in ("GIF", "PNG", "WEBP", "TIFF", "MPO")
    ),
    "cmyk": (
        lambda pixels: saved(Image.fromarray(pixels).convert("CMYK"), "JPEG"),
        lambda pixels: saved(Image.fromarray(pixels).convert("CMYK"), "TIFF"),
    ),
    "color_profile": (
        lambda pixels: saved(Image.fromarray(pixels), "PNG", icc_profile=profile(1.0)),
        lambda pixels: saved(Image.fromarray(pixels), "JPEG", icc_profile=profile(2.2, ADOBE)),
        lambda pixels: saved(
            Image.fromarray(pixels[..., 0]), "JPEG", icc_profile=profile(1.0, None)
        ),
    ),
    "gamma": (
        lambda pixels: with_chunk(
            saved(Image.fromarray(pixels), "PNG"), b"gAMA", struct.pack(">I", 100_000)
        ),
    ),
    "sixteen_bit": (
        lambda pixels: deep_png(pixels.astype(np.uint16) * 257),
        lambda pixels: deep_png(pixels[..., 0].astype(np.uint16) * 257),
        lambda pixels: saved(Image.fromarray(pixels[..., 0].astype(np.uint16) * 257), "TIFF"),
        lambda pixels: saved(Image.fromarray(pixels[..., 0].astype(np.uint16) * 257), "JPEG2000"),
        lambda pixels: (
            b"P6 %d %d 65535\n" % pixels.shape[1::-1]
            + (pixels.astype(">u2") * 257).astype(">u2").tobytes()
        ),
    ),
    "not_bytes": (
        lambda pixels: saved(Image.fromarray(pixels[..., 0].astype(np.int32)), "TIFF"),
        lambda pixels: saved(Image.fromarray(pixels[..., 0].astype(np.float32)), "TIFF"),
    ),
    "lab": (lambda pixels: saved(Image.new("LAB", pixels.shape[1::-1]), "TIFF"),),
}

ORDINARY: tuple[Callable[[Pixels], bytes], ...] = (
    lambda pixels: saved(Image.fromarray(pixels), "JPEG"),
    lambda pixels: turned(pixels, 1),
    lambda pixels: saved(Image.fromarray(pixels).convert("L"), "PNG"),
    lambda pixels: saved(Image.fromarray(pixels).convert("1"), "PNG"),
    lambda pixels: saved(Image.fromarray(pixels).quantize(16), "PNG"),
    lambda pixels: saved(Image.fromarray(pixels).convert("RGBA"), "PNG"),
    lambda pixels: saved(Image.fromarray(pixels), "GIF"),
    lambda pixels: saved(Image.fromarray(pixels), "TIFF"),
    lambda pixels: saved(Image.fromarray(pixels), "JPEG2000"),
    lambda pixels: saved(Image.fromarray(pixels).convert("YCbCr"), "TIFF"),
    lambda pixels: saved(Image.fromarray(pixels), "PNG", icc_profile=profile(2.2)),
    lambda pixels: saved(Image.fromarray(pixels), "PNG", icc_profile=b"not a profile"),
    lambda pixels: saved(Image.fromarray(pixels[..., 0]), "PNG", icc_profile=profile(2.2, None)),
    lambda pixels: with_chunk(
        saved(Image.fromarray(pixels), "PNG"), b"gAMA", struct.pack(">I", 45_455)
    ),
)


def _chunk(name: bytes, data: bytes) -> bytes:
    checked = name + data
    return struct.pack(">I", len(data)) + checked + struct.pack(">I", zlib.crc32(checked))
