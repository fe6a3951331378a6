"""What the files beside the weights say of preprocessing, in the words of a model's registration.

Two forms are read: what image processors of `transformers` write, and the `pretrained_cfg` of timm.
A processor may compute something of its own, so what was read from it is tried: the library's
processor and ours get the same pictures, and must make the same of them.
"""

import json
import math
import tempfile
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from PIL import Image
from torch import Tensor

from domain.errors import JobError
from worker.networks import functions, json_files

PREPROCESSOR, PROCESSOR = "preprocessor_config.json", "processor_config.json"
INTERPOLATIONS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}
"""Pillow's numbers."""

SIZES = ((320, 260), (51, 77))
"""Width and height of the pictures that are tried: to be made smaller, and larger."""

LARGEST = 2048
"""Pixels of a side that is tried."""

CLOSE = 0.02
"""The largest mean difference between the two, in standard deviations of the inputs."""

INSTEAD = (
    "Register the model with the `preprocessing` it was trained with, and preprocessing_source: "
    '"declared".'
)

Fields = dict[str, Any]
Prepare = Callable[[pa.Array, Fields], Tensor]


def described(
    directory: Path, allow: Callable[[str], Path], prepare: Prepare, *, mode: str
) -> tuple[Fields, str] | None:
    """The preprocessing that a file in the directory describes, and the file's name.

    None if there is no such file.

    Args:
        allow: resolves a path, and raises JobError where it may not be read.
        prepare: makes encoded images (N,) into a network's input (N, C, H, W), as fields say.
        mode: `RGB` or `L`, as the registration says.

    Raises:
        JobError: a file describes something that a registration cannot, or two contradict.
    """
    found = []
    for name in (PREPROCESSOR, PROCESSOR):
        said = _object(directory / name, allow)
        if said is not None and name == PROCESSOR:
            said = said.get("image_processor")
        if isinstance(said, dict) and _is_for_images(said):
            found.append((_of_processor(said, directory, name, prepare, mode), name))
    timm = (_object(directory / "config.json", allow) or {}).get("pretrained_cfg")
    if isinstance(timm, dict) and not found:
        found.append((_of_timm(timm), "config.json"))
    if len(found) > 1 and found[0][0] != found[1][0]:
        raise JobError(
            f"{PREPROCESSOR} and {PROCESSOR} describe different preprocessing. Delete the one that "
            f"the model was not trained with. {INSTEAD}"
        )
    return found[0] if found else None


def merged(declared: Fields, read: tuple[Fields, str], free: frozenset[str]) -> Fields:
    """The preprocessing that was read, and what was declared beside it.

    Args:
        free: options that the registration may set whatever the file says.

    Raises:
        JobError: what was declared contradicts the file.
    """
    fields, name = read
    against = [
        f"{option} is {fields[option]} there and {value} in the registration"
        for option, value in declared.items()
        if option in fields and option not in free and not _alike(fields[option], value)
    ]
    if against:
        raise JobError(
            f"The registration contradicts {name} beside the weights: {'; '.join(against)}. Leave "
            "the options out of `preprocessing` to use the file's, or declare all of it with "
            'preprocessing_source: "declared" if the file is wrong.'
        )
    return {**fields, **declared}


def _object(file: Path, allow: Callable[[str], Path]) -> Fields | None:
    return json_files.read(allow(str(file)), what="preprocessing") if file.exists() else None


def _is_for_images(said: Fields) -> bool:
    return any(key in said for key in ("image_processor_type", "image_mean", "do_resize", "size"))


def _alike(one: Any, other: Any) -> bool:
    if isinstance(one, list) and isinstance(other, list | tuple):
        one = one if len(one) > 1 else one * len(other)
        other = list(other) if len(other) > 1 else list(other) * len(one)
        return len(one) == len(other) and all(map(_alike, one, other))
    numbers = isinstance(one, float | int) and isinstance(other, float | int)
    return math.isclose(one, other, rel_tol=1e-4, abs_tol=1e-9) if numbers else bool(one == other)


def _of_processor(said: Fields, directory: Path, name: str, prepare: Prepare, mode: str) -> Fields:
    """What the library's processor does, from its own attributes, once it was tried."""
    pictures = _pictures(mode)
    try:
        with functions.users_code(f"The image processor that {name} describes"):
            _require_reasonable(said)
            processor = _processor(said, directory)
            expected = [
                torch.as_tensor(np.array(processor(image)["pixel_values"][0])).float()
                for image in pictures
            ]
            for fields in _readings(processor):
                ours = [prepare(_encoded(each), {**fields, "mode": mode})[0] for each in pictures]
                if all(map(_agree, ours, expected)):
                    return fields
    except JobError as error:
        raise JobError(f"{str(error).rstrip('.')}. {INSTEAD}") from error
    raise JobError(
        f"{name} describes a {type(processor).__name__}, which does something that `preprocessing` "
        f"cannot say (its options: {', '.join(sorted(said))}). {INSTEAD}"
    )


def _agree(ours: Tensor, its: Tensor) -> bool:
    if ours.shape != its.shape:
        return False
    return bool((ours - its).abs().mean() <= CLOSE * its.std().clamp_min(1e-6))


def _require_reasonable(said: Fields) -> None:
    """Refuse sizes that would take a machine's memory to try."""
    for key in ("size", "crop_size"):
        size = said.get(key)
        sides = size.values() if isinstance(size, dict) else [size]
        if any(isinstance(side, int | float) and side > LARGEST for side in sides):
            raise ValueError(f"its {key} is {size}, and sides may have {LARGEST} pixels")


def _processor(said: Fields, directory: Path) -> Any:
    import transformers

    transformers.utils.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    code = ("auto_map", "custom_pipelines", "processor_class", "trust_remote_code")
    plain = {key: value for key, value in said.items() if key not in code}
    with tempfile.TemporaryDirectory() as alone:  # so that nothing else of the directory is read
        Path(alone, PREPROCESSOR).write_text(json.dumps(plain))
        if (config := directory / "config.json").is_file():
            known = json_files.read(config, what="configuration").get("model_type")
            Path(alone, "config.json").write_text(json.dumps({"model_type": known}))
        return transformers.AutoImageProcessor.from_pretrained(  # type: ignore[no-untyped-call]
            alone, trust_remote_code=False, local_files_only=True
        )


def _readings(processor: Any) -> Iterator[Fields]:
    """What the processor may do, as its attributes say: the plain reading first.

    Those of ConvNeXT, LeViT and PoolFormer take the shortest edge for the size of the crop.
    """

    def option(key: str) -> Any:
        return getattr(processor, key, None)

    normalised = option("do_normalize")
    fields: Fields = {
        "scale": option("rescale_factor") if option("do_rescale") else 1.0,
        "mean": _numbers(option("image_mean")) if normalised else [0.0],
        "std": _numbers(option("image_std")) if normalised else [1.0],
    }
    crop = {"crop": _size(option("crop_size"))} if option("do_center_crop") else {}
    if not option("do_resize"):
        yield {**fields, **crop}
        return
    size, fields["interpolation"] = _size(option("size")), INTERPOLATIONS[int(option("resample"))]
    yield {**fields, "resize": size, **crop}
    if isinstance(size, dict):
        side = size["shortest_edge"]
        yield {**fields, "resize": [side, side], **crop}
        for part in (option("crop_pct") or 1, 224 / 256):
            resize = {"shortest_edge": int(side / part)}
            yield {**fields, "resize": resize, "crop": crop.get("crop", [side, side])}


def _numbers(value: Any) -> list[float]:
    return [float(each) for each in value] if isinstance(value, list | tuple) else [float(value)]


def _size(size: Any) -> Any:
    """As a registration writes it; a size of another form raises ValueError."""
    known = {key: size[key] for key in ("height", "width", "shortest_edge") if size.get(key)}
    if set(known) == {"height", "width"}:
        return [known["height"], known["width"]]
    if set(known) == {"shortest_edge"} and not size.get("longest_edge"):
        return known
    raise ValueError(f"its size is {size}, which `preprocessing` cannot say")


def _of_timm(said: Fields) -> Fields:
    """What timm's transform for evaluation does, from its `pretrained_cfg`."""
    try:
        _, height, width = said["input_size"]
        part = float(said.get("crop_pct") or 0.875)
        interpolation = str(said.get("interpolation", "bicubic"))
        mode = str(said.get("crop_mode") or "center")
        if height != width or mode not in ("center", "squash"):
            raise ValueError(f"inputs of {height} x {width}, crop_mode {mode!r}")
        if interpolation not in INTERPOLATIONS.values():
            raise ValueError(f"interpolation {interpolation!r}")
        whole = math.floor(height / part)
        return {
            "resize": [whole, whole] if mode == "squash" else {"shortest_edge": whole},
            "interpolation": interpolation,
            "crop": [height, width],
            "scale": 1 / 255,
            "mean": _numbers(said["mean"]),
            "std": _numbers(said["std"]),
        }
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise JobError(
            f"The pretrained_cfg in config.json describes preprocessing that cannot be used "
            f"({type(error).__name__}: {error}). {INSTEAD}"
        ) from error


def _pictures(mode: str) -> list[Image.Image]:
    """Smooth colours with noise on them, of which any change of order, size or scale is seen."""
    generator = np.random.default_rng(0)
    pictures = []
    for width, height in SIZES:
        down, across = np.mgrid[0:height, 0:width]
        colours = np.stack([down * 255 / height, across * 255 / width, 255 - down * 128 / height])
        noisy = colours.transpose(1, 2, 0) + generator.normal(0, 30, (height, width, 3))
        picture = Image.fromarray(noisy.clip(0, 255).astype(np.uint8))
        pictures.append(picture.convert(mode))
    return pictures


def _encoded(image: Image.Image) -> pa.Array:
    file = BytesIO()
    image.save(file, "PNG")
    return pa.array([file.getvalue()], pa.large_binary())
