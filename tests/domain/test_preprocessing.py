import pytest

from domain.preprocessing import IMAGE_KINDS, OPTIONS, refusal
from service.models.schemas import Preprocessing

IMAGE = ["resize", "mode"]
SCALING = ["scale", "mean", "std"]
CHOICES = {"orientation": "exif", "alpha": "drop", "frames": "first", "cmyk": "naive"}
CHOICES |= {"color_profile": "srgb", "sixteen_bit": "high_byte"}
IMAGE += ["interpolation", "crop", *CHOICES]
VALUES = {
    "resize": [8, 8],
    "interpolation": "box",
    "crop": [8, 8],
    **CHOICES,
    "mode": "RGB",
    "scale": 1.0,
    "mean": [0.5],
    "std": [0.5],
}


def refused(kind: str | None, *chosen: str, stored: str = "uint8") -> str | None:
    definition = {} if kind is None else {"kind": kind}
    report = {"inputs": {"type": stored}}
    return refusal(definition, report, {name: VALUES[name] for name in chosen})


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("image", []),
        ("pixels", IMAGE),
        ("tokens", IMAGE + SCALING),
        ("features", IMAGE + SCALING),
    ],
)
def test_options_that_do_not_apply_to_the_kind_are_refused(kind, options):
    for option in VALUES:
        problem = refused(kind, option)
        assert (problem is not None) == (option in options), (kind, option)
        assert problem is None or f"`{option}` in `preprocessing` does not apply" in problem


def test_an_option_that_is_null_was_not_chosen():
    assert refusal({"kind": "tokens"}, None, {"resize": None, "scale": None}) is None


@pytest.mark.parametrize("stored", ["float32", "int8", "int16", "uint16", "int32", "float64"])
def test_pixels_that_are_not_bytes_need_a_scale(stored):
    assert "`preprocessing.scale` must say" in (refused("pixels", stored=stored) or "")
    assert refused("pixels", "scale", stored=stored) is None
    assert refused("features", stored=stored) is None


def test_bytes_have_a_scale_of_their_own():
    assert refused("pixels") is None


def test_a_dataset_of_an_older_release_takes_what_it_took():
    assert refused(None, *VALUES, stored="int32") is None


def test_every_option_of_the_api_applies_to_some_kind():
    assert OPTIONS.keys() == VALUES.keys() == Preprocessing.model_fields.keys()


def test_images_that_can_be_read_in_several_ways_need_a_choice():
    report = {"images": {"exif_orientation": 512, "cmyk": 3}}
    image = {"kind": "image"}

    problem = refusal(image, report, {}) or ""
    assert (
        "512 images are to be turned, as their EXIF data say: set `preprocessing.orient" in problem
    )
    assert "(`exif` turns them upright; `ignore` leaves them as they are stored" in problem
    assert "3 images are in CMYK: set `preprocessing.cmyk`" in problem
    assert problem.endswith("Choose what the network was trained with.")
    assert "CMYK" in (refusal(image, report, {"orientation": "ignore"}) or "")
    assert refusal(image, report, {"orientation": "ignore", "cmyk": "naive"}) is None


@pytest.mark.parametrize("kind", ["not_bytes", "lab"])
def test_images_that_cannot_be_read_are_refused_whatever_is_chosen(kind):
    problem = refusal({"kind": "image"}, {"images": {kind: 1}}, VALUES)

    assert IMAGE_KINDS[kind].what in (problem or "")
    assert "convert them to 8-bit RGB" in (problem or "")


def test_another_gamma_is_not_converted():
    report = {"images": {"gamma": 2}}

    assert refusal({"kind": "image"}, report, {"color_profile": "srgb"}) is not None
    assert refusal({"kind": "image"}, report, {"color_profile": "ignore"}) is None
