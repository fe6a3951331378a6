"""What the inputs of a dataset are, and which options of a model's preprocessing fit them.

The meaning of an input is declared when the dataset is registered. It is never guessed from the
type of a column: integers may be pixels, tokens or measurements.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class InputKind(StrEnum):
    """What the inputs of a dataset are.

    - `image`: encoded image files, such as JPEG or PNG.
    - `pixels`: arrays of raw pixel values, which are scaled and normalised.
    - `tokens`: sequences of token ids, which are never scaled.
    - `features`: numbers that the network takes as they are; integers become floats.
    """

    IMAGE = "image"
    PIXELS = "pixels"
    TOKENS = "tokens"
    FEATURES = "features"


OPTIONS: Mapping[str, frozenset[InputKind]] = {
    **dict.fromkeys(
        (
            "resize", "interpolation", "crop", "mode", "orientation", "alpha", "frames", "cmyk",
            "color_profile", "sixteen_bit",
        ),
        frozenset({InputKind.IMAGE}),
    ),
    **dict.fromkeys(("scale", "mean", "std"), frozenset({InputKind.IMAGE, InputKind.PIXELS})),
}  # fmt: skip
"""The kinds of inputs that each option of a model's preprocessing applies to."""


@dataclass(frozen=True, slots=True)
class ImageKind:
    """Images that can be read in more than one way, or in none."""

    what: str
    """What such images are or have, after their number."""

    option: str | None
    """The option that says how to read them; None if there is none, and they must be converted."""

    choices: Mapping[str, str]
    """What can be chosen, and what it does."""


IMAGE_KINDS: Mapping[str, ImageKind] = {
    "exif_orientation": ImageKind(
        "to be turned, as their EXIF data say",
        "orientation",
        {
            "exif": "turns them upright",
            "ignore": "leaves them as they are stored, as Pillow does by itself",
        },
    ),
    "alpha": ImageKind(
        "partly transparent",
        "alpha",
        {
            "drop": "shows the hidden colours, as Pillow does by itself",
            "white": "puts them on white",
            "black": "puts them on black",
        },
    ),
    "several_frames": ImageKind(
        "animated or of several pages", "frames", {"first": "takes the first one"}
    ),
    "cmyk": ImageKind(
        "in CMYK",
        "cmyk",
        {"naive": "computes RGB without a colour profile, as Pillow does by itself"},
    ),
    "color_profile": ImageKind(
        "in the colours of a profile other than sRGB",
        "color_profile",
        {
            "ignore": "takes the numbers as they are, as Pillow does by itself",
            "srgb": "converts them to sRGB",
        },
    ),
    "gamma": ImageKind(
        "of another gamma than sRGB",
        "color_profile",
        {"ignore": "takes the numbers as they are, as Pillow does by itself"},
    ),
    "sixteen_bit": ImageKind(
        "of 16 bits per channel",
        "sixteen_bit",
        {"high_byte": "keeps the upper 8 bits"},
    ),
    "not_bytes": ImageKind("of numbers other than bytes", None, {}),
    "lab": ImageKind("in the colours of CIELAB", None, {}),
}
"""The images of which the dataset's report gives the numbers, and what can be done with each.

`worker.data.image_kinds` recognises them.
"""


def kind_of(definition: Mapping[str, Any]) -> InputKind | None:
    """The declared kind of a dataset; None if an older release registered it, which had none."""
    kind = definition.get("kind")
    return None if kind is None else InputKind(kind)


def refusal(
    definition: Mapping[str, Any],
    report: Mapping[str, Any] | None,
    preprocessing: Mapping[str, Any],
    *,
    complete: bool = True,
) -> str | None:
    """Why this preprocessing does not fit a dataset, and what to do; None if it fits.

    A dataset that declares no kind is read as the release that registered it read it.

    Args:
        definition: the dataset's, as registered.
        report: the dataset's, as indexed.
        preprocessing: the options that were chosen; those that are None were not.
        complete: whether no file beside the weights can add to them.
    """
    kind = kind_of(definition)
    if kind is None:
        return None
    chosen = [name for name, value in preprocessing.items() if value is not None]
    idle = [name for name in chosen if name in OPTIONS and kind not in OPTIONS[name]]
    if idle:
        return (
            f"{_quoted(idle)} in `preprocessing` {_apply(idle)} to inputs of the kind "
            f"`{kind}`; leave {'it' if len(idle) == 1 else 'them'} out. If the kind is wrong, "
            "register the dataset again under another name."
        )
    if kind is InputKind.IMAGE:
        return _undecided((report or {}).get("images", {}), preprocessing)
    stored = (report or {}).get("inputs", {}).get("type", "uint8")
    if kind is InputKind.PIXELS and stored != "uint8" and "scale" not in chosen and complete:
        return (
            f"The pixels are stored as {stored}, so `preprocessing.scale` must say what they are "
            "multiplied with, such as 1 for values that are scaled already or 1/65535 for 16 bits. "
            "Only for bytes it is 1/255 unless you set it."
        )
    return None


def _undecided(images: Mapping[str, int], preprocessing: Mapping[str, Any]) -> str | None:
    """What must be chosen, or cannot be, for the images that can be read in several ways."""
    sentences = []
    for name, count in images.items():
        known = IMAGE_KINDS[name]
        if known.option is None:
            sentences.append(
                f"{count} images are {known.what}, which cannot be read as images: convert them "
                "to 8-bit RGB, or register their values as `pixels`."
            )
        elif preprocessing.get(known.option) not in known.choices:
            choices = "; ".join(f"`{choice}` {does}" for choice, does in known.choices.items())
            sentences.append(
                f"{count} images are {known.what}: set `preprocessing.{known.option}` ({choices})."
            )
    if not sentences:
        return None
    return " ".join([*sentences, "Choose what the network was trained with."])


def _apply(names: list[str]) -> str:
    return "does not apply" if len(names) == 1 else "do not apply"


def _quoted(names: list[str]) -> str:
    quoted = [f"`{name}`" for name in names]
    return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} and {quoted[-1]}"
