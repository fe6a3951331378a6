import pytest

from domain.preprocessing import refusal

IMAGE = ["resize", "mode"]
SCALING = ["scale", "mean", "std"]
VALUES = {"resize": [8, 8], "mode": "RGB", "scale": 1.0, "mean": [0.5], "std": [0.5]}


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
