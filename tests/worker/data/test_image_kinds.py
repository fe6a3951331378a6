import warnings

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from domain.errors import JobError
from domain.preprocessing import IMAGE_KINDS
from service.models.schemas import Preprocessing
from tests.worker.data.unusual_images import (
    ORDINARY,
    SRGB,
    UNUSUAL,
    profile,
    saved,
    see_through,
    turned,
)
from worker.data import images

PIXELS = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
TRANSPOSED = {
    1: lambda upright: upright,
    2: lambda upright: upright[:, ::-1],
    3: lambda upright: upright[::-1, ::-1],
    4: lambda upright: upright[::-1],
    5: lambda upright: upright.swapaxes(0, 1),
    6: lambda upright: np.rot90(upright, 1),
    7: lambda upright: np.rot90(upright[::-1, ::-1].swapaxes(0, 1), 0),
    8: lambda upright: np.rot90(upright, -1),
}
"""How pixels are stored that each EXIF orientation turns upright."""


def kinds(*files: bytes) -> list[list[str]]:
    bad, found = images.examined(pa.array(files, pa.large_binary()))
    assert not bad.any()
    return [[kind for kind, mask in found.items() if mask[n]] for n in range(len(files))]


def read(file: bytes, **preprocessing) -> np.ndarray:
    """(H, W, C) of one image."""
    (decoded,) = images.pixels(pa.array([file], pa.large_binary()), preprocessing)
    return decoded.transpose(1, 2, 0)


@pytest.mark.parametrize("kind", UNUSUAL)
def test_images_that_can_be_read_in_several_ways_are_recognised(kind):
    files = [make(PIXELS) for make in UNUSUAL[kind]]

    assert kinds(*files) == [[kind]] * len(files)


def test_ordinary_images_are_of_no_kind():
    assert not any(kinds(*[make(PIXELS) for make in ORDINARY]))


def test_every_kind_has_a_file_and_options_that_the_api_takes():
    assert UNUSUAL.keys() == IMAGE_KINDS.keys()
    for kind in IMAGE_KINDS.values():
        for choice in kind.choices:
            assert Preprocessing.model_validate({kind.option: choice})


@pytest.mark.parametrize("orientation", TRANSPOSED)
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_photos_are_turned_upright_or_left_as_they_are_stored(kind, orientation):
    stored = np.ascontiguousarray(TRANSPOSED[orientation](PIXELS))
    file = turned(stored, orientation, kind)

    assert (read(file, orientation="exif") == PIXELS).all()
    assert (read(file, orientation="ignore") == stored).all()


def test_transparent_images_are_put_on_a_ground_or_lose_their_transparency():
    file = see_through(PIXELS)

    assert (read(file, alpha="drop") == PIXELS).all()
    for ground, value in (("white", 255), ("black", 0)):
        seen = read(file, alpha=ground)
        assert (seen[:, :8] == PIXELS[:, :8]).all()
        assert (seen[:, 8:] == value).all()


def test_transparent_palettes_are_read_without_a_warning():
    image = Image.fromarray(PIXELS).quantize(16)
    file = saved(image, "PNG", transparency=bytes(range(0, 160, 10)))

    with warnings.catch_warnings(action="error"):
        seen = read(file, alpha="drop")

    assert (seen == np.asarray(image.convert("RGB"))).all()


@pytest.mark.parametrize("make", UNUSUAL["sixteen_bit"])
def test_the_upper_bits_of_deep_images_are_kept(make):
    seen = read(make(PIXELS), sixteen_bit="high_byte")

    assert (seen == PIXELS).all() or (seen == PIXELS[..., :1]).all()


@pytest.mark.parametrize("make", [UNUSUAL["several_frames"][n] for n in (1, 3)])
def test_of_several_frames_the_first_is_read(make):
    assert (read(make(PIXELS), frames="first") == PIXELS).all()


def test_cmyk_is_computed_without_a_profile():
    inks = Image.fromarray(PIXELS).convert("CMYK")

    assert (read(saved(inks, "TIFF"), cmyk="naive") == PIXELS).all()


@pytest.mark.parametrize("primaries", ["sRGB", "grey"])
def test_colors_of_a_profile_are_converted_or_taken_as_they_are(primaries):
    linear = np.linspace(0, 1, 256)
    ramp = np.where(linear < 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055) * 255
    greys = np.tile(np.arange(256, dtype=np.uint8), (2, 1))
    image = Image.fromarray(greys)
    file = saved(image, "PNG", icc_profile=profile(1.0, None))
    if primaries == "sRGB":
        file = saved(image.convert("RGB"), "PNG", icc_profile=profile(1.0))

    assert (read(file, color_profile="ignore") == greys[..., None]).all()
    differences = abs(read(file, color_profile="srgb").astype(float) - ramp[:, None])
    assert differences[:, 8:].max() < 2  # in the dark, LittleCMS is less exact


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "PA"])
def test_colors_are_converted_whatever_the_mode(mode):
    greys = np.tile(np.arange(256, dtype=np.uint8), (2, 1))
    image = Image.fromarray(greys).convert("RGBA" if mode == "PA" else "RGB").convert(mode)
    given = profile(1.0, None if mode in ("1", "L", "LA") else SRGB)
    file = saved(image, "TIFF" if mode == "PA" else "PNG", icc_profile=given)

    plain, seen = (read(file, color_profile=how).astype(int) for how in ("ignore", "srgb"))

    assert kinds(file) == [["color_profile"]]
    assert ((plain > 60) & (plain < 200)).any() == (mode != "1")
    assert (seen >= plain).all()
    assert (seen[plain == 128] > 180).all()


def test_without_a_choice_images_are_read_as_older_releases_read_them():
    for files in UNUSUAL.values():
        for make in files:
            image = Image.open(images.BytesIO(make(PIXELS)))
            with warnings.catch_warnings(action="ignore"):
                expected = np.asarray(image.convert("RGB"))
            assert (read(make(PIXELS)) == expected).all()


def test_a_resize_to_the_shorter_side_and_a_crop_are_those_of_processors():
    file = saved(Image.fromarray(PIXELS), "PNG")
    how = {"resize": {"shortest_edge": 6}, "interpolation": "bicubic", "crop": [5, 7]}

    resized = Image.fromarray(PIXELS).resize((8, 6), Image.Resampling.BICUBIC)
    assert (read(file, **how) == np.asarray(resized)[0:5, 0:7]).all()
    upright = saved(Image.fromarray(PIXELS.swapaxes(0, 1).copy()), "PNG")
    assert read(upright, resize={"shortest_edge": 6}).shape == (8, 6, 3)


def test_a_crop_adds_black_around_a_smaller_image():
    seen = read(saved(Image.fromarray(PIXELS), "PNG"), crop=[15, 16])

    assert (seen[2:14] == PIXELS).all()
    assert not seen[:2].any()
    assert not seen[14:].any()


def test_a_long_and_narrow_image_is_not_blown_up():
    strip = saved(Image.new("L", (20_000, 1)), "PNG")

    with pytest.raises(JobError, match="An image of 20000 x 1 pixels would have 4480000 x 224"):
        read(strip, resize={"shortest_edge": 224})
