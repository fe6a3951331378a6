"""Images that are larger than they look, made small by small budgets."""

from io import BytesIO

import pyarrow as pa
import pytest
from PIL import Image

from benchmarks import hostile
from domain.errors import JobError
from tests import fresh
from worker import budgets
from worker.data import images

SMALL = hostile.encoded(Image.new("RGB", (8, 8)), "PNG")


def column(*files):
    return pa.array(files, pa.large_binary())


def test_an_image_of_too_many_pixels_is_undecodable():
    bad, _ = images.examined(column(SMALL, hostile.png(6000, 6000, "1"), SMALL))

    assert bad.tolist() == [False, True, False]


@pytest.mark.parametrize("kind", ["PNG", "GIF", "WEBP", "TIFF", "BMP", "JPEG2000", "JPEG", "PPM"])
def test_the_limit_is_the_same_for_every_format(monkeypatch, kind):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100 * 100)
    fits, too_large = (hostile.encoded(Image.new("RGB", (side, 100)), kind) for side in (100, 101))

    assert images.examined(column(fits, too_large))[0].tolist() == [False, True]


def test_images_may_not_have_too_many_pixels_altogether():
    allowed = budgets.Expansion(10, 1, 64 * 3, "pixels")

    assert not images.examined(column(SMALL, SMALL, SMALL), allowed)[0].any()
    with pytest.raises(JobError, match="more pixels than files of that size can sensibly hold"):
        images.examined(column(SMALL), allowed)


def test_an_image_that_takes_too_much_memory_spares_the_others():
    bad = fresh.printed("""
from PIL import Image
from benchmarks import hostile
from tests.worker.data.test_image_budgets import SMALL, column, images
images.ALONE_BYTES = 2**22
for kind in ("TIFF", "JPEG2000"):
    large = hostile.encoded(Image.new("RGB", (2500, 2500)), kind)
    small = hostile.encoded(Image.new("RGB", (8, 8)), kind)
    bad, _ = images.examined(column(*[SMALL, small] * 20, large, *[SMALL, small] * 20))
    print(bad.nonzero()[0].tolist())
""")

    assert bad.split("\n") == ["[40]", "[40]", ""]


def test_a_jpeg_of_a_thousand_scans_is_not_decoded():
    sound = hostile.encoded(Image.new("RGB", (64, 64)), "JPEG", progressive=True)
    last = sound.rindex(b"\xff\xda")
    scans = sound[:last] + sound[last:-2] * 1000 + b"\xff\xd9"

    assert images.examined(column(sound, scans))[0].tolist() == [False, True]


def test_a_tiff_whose_tiles_are_larger_than_itself_does_no_harm():
    """A tile of 40,000 x 40,000 for an image of 16 x 16."""
    file = BytesIO()
    Image.new("L", (16, 16)).save(file, "TIFF", compression="tiff_lzw", tiffinfo={
        322: 40_000, 323: 40_000,
    })  # fmt: skip

    images.examined(column(file.getvalue(), SMALL))


def test_the_heavy_wait_for_each_other_and_one_alone_is_always_let_in():
    weighed = budgets.Weighed(10)
    with weighed.holding(4), weighed.holding(6):
        pass
    with weighed.holding(1000):
        pass
