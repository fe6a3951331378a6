"""What lies beside the weights, held against what the registration and the dataset say.

From it follow the names of the outputs, and how inputs are prepared. Neither is guessed: what the
files say is used, what contradicts is refused, and the model's answer says where each came from.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from torch import nn

from domain.classes import check, first_difference, label_map
from domain.errors import JobError
from domain.preprocessing import InputKind
from worker.networks import architectures, configs, json_files, processors, tokenizers

DECLARED, DEFAULT, CONFIG = "declared", "default", "config.json"
IMAGE_FILES = frozenset({"resize", "interpolation", "crop"})
"""Options that are for encoded images only."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """What the inputs of the dataset are, as far as preprocessing depends on it."""

    encoded: bool
    """Whether they are image files."""

    pixels: bool
    """Whether they are pixels: image files, or arrays of their values."""

    bytes: bool
    shape: Sequence[int] | None

    @classmethod
    def of(
        cls, kind: InputKind | None, stored: pa.DataType, shape: Sequence[int] | None
    ) -> "Inputs":
        """What inputs of this kind and type are.

        Without a kind, integers of more than 8 bits are tokens, as older releases took them.
        """
        encoded = pa.types.is_large_binary(stored)
        values = None if encoded or pa.types.is_struct(stored) else stored.value_type
        is_bytes = encoded or values == pa.uint8()
        guessed = is_bytes or (values is not None and pa.types.is_floating(values))
        pixels = guessed if kind is None else kind in (InputKind.IMAGE, InputKind.PIXELS)
        return cls(encoded, pixels, is_bytes, shape)


@dataclass(frozen=True, slots=True)
class Found:
    """How the model is fed, and what its outputs are called."""

    preprocessing: dict[str, Any]
    """As jobs use it; with `labels` where the dataset's labels are to be translated."""

    preprocessing_source: str
    classes: list[str] | None
    classes_source: str | None

    def stored(self) -> dict[str, Any]:
        """What the model's row keeps of it besides the preprocessing."""
        return {
            "preprocessing_source": self.preprocessing_source,
            "classes": self.classes,
            "classes_source": self.classes_source,
        }


def found(
    directory: Path,
    architecture: dict[str, Any],
    declared: dict[str, Any],
    inputs: Inputs,
    dataset_classes: Sequence[str] | None,
    allow: Callable[[str], Path],
    prepare: processors.Prepare,
) -> Found:
    """Everything that follows from the files in the directory of the weights.

    Args:
        architecture: completed.
        declared: `preprocessing`, `preprocessing_source`, `classes` and `map_classes` of the
            registration.
        dataset_classes: names in the order of the label numbers; None if they are not known.
        allow: resolves a path, and raises JobError where it may not be read.
        prepare: makes encoded images into a network's input.

    Raises:
        JobError: files, registration and dataset contradict each other.
    """
    config = _config(directory, architecture, allow)
    names, names_from = _classes(config, declared)
    try:
        labels = label_map(dataset_classes, names, wanted=bool(declared.get("map_classes")))
    except ValueError as error:
        raise JobError(str(error)) from error
    fields, source = _preprocessing(directory, declared, inputs, allow, prepare)
    if labels is not None:
        fields = {**fields, "labels": labels}
    return Found(fields, source, names, names_from)


def check_padding(
    module: nn.Module,
    location: Path,
    arguments: Sequence[str] | None,
    allow: Callable[[str], Path],
) -> None:
    """Hold the tokenizer beside the weights against a transformers network that reads tokens.

    Args:
        arguments: names of the network's inputs, if there are several. A mask among them says what
            is padding, and then the token does not matter.

    Raises:
        JobError: they take different tokens for padding.
    """
    if "attention_mask" in (arguments or ()) or not architectures.of_transformers(module):
        return
    if module.main_input_name == "input_ids":
        directory = location if location.is_dir() else location.parent
        padding = getattr(module.config, "pad_token_id", None)
        tokenizers.check_padding(directory, padding, allow)


def check_classes(found: Found, outputs: int) -> None:
    """Raise JobError if the names of the classes are not as many as the network's outputs."""
    if found.classes is not None and len(found.classes) != outputs:
        raise JobError(
            f"The network has {outputs} outputs, but {len(found.classes)} names of classes are "
            f"known ({found.classes_source}). Register one name for each output, in their order."
        )


def _config(
    directory: Path, architecture: dict[str, Any], allow: Callable[[str], Path]
) -> dict[str, Any]:
    """The config.json beside the weights; a `python` architecture need not have one."""
    if architecture["kind"] == "transformers":
        return dict(architecture["config"])
    file = directory / CONFIG
    if not file.is_file():
        return {}
    config = json_files.read(allow(str(file)), what="configuration of the network")
    known = ("id2label", "label2id", "label_names")
    return {key: config[key] for key in known if key in config}


def _classes(
    config: dict[str, Any], declared: dict[str, Any]
) -> tuple[list[str] | None, str | None]:
    """The names of the outputs, and where they are from."""
    names = configs.class_names(config)
    listed = config.get("label_names")  # timm's
    if names is None and isinstance(listed, list) and all(isinstance(n, str) for n in listed):
        names = listed or None
    wanted: list[str] | None = declared.get("classes")
    if wanted is None:
        return names, None if names is None else CONFIG
    try:
        check(wanted, "`classes`")
    except ValueError as error:
        raise JobError(str(error)) from error
    if names is not None and (place := first_difference(wanted, names)) is not None:
        here, there = (
            repr(each[place]) if place < len(each) else "missing" for each in (wanted, names)
        )
        raise JobError(
            f"`classes` of the registration contradicts {CONFIG} beside the weights: class {place} "
            f"is {here} in one and {there} in the other. Correct the one that is wrong."
        )
    return wanted, DECLARED


def _preprocessing(
    directory: Path,
    declared: dict[str, Any],
    inputs: Inputs,
    allow: Callable[[str], Path],
    prepare: processors.Prepare,
) -> tuple[dict[str, Any], str]:
    """How inputs are prepared, and where that is from."""
    given: dict[str, Any] = declared.get("preprocessing") or {}
    chosen = {option: value for option, value in given.items() if value is not None}
    by_hand = DECLARED if chosen else DEFAULT
    if declared.get("preprocessing_source") == DECLARED or not inputs.pixels:
        return chosen, by_hand
    read = processors.described(directory, allow, prepare, mode=chosen.get("mode") or "RGB")
    if read is None:
        return chosen, by_hand
    fields, name = read
    if inputs.encoded:
        return processors.merged(chosen, read, frozenset()), name
    _require_size(fields, inputs.shape, name)
    fields = {option: value for option, value in fields.items() if option not in IMAGE_FILES}
    free = frozenset() if inputs.bytes else frozenset({"scale"})  # the file speaks of bytes
    return processors.merged(chosen, (fields, name), free), name


def _require_size(fields: dict[str, Any], shape: Sequence[int] | None, name: str) -> None:
    """Refuse arrays of another size than the network was trained with: they are not resized."""
    size = fields.get("crop") or fields.get("resize")
    if isinstance(size, list) and shape is not None and list(shape[-2:]) != size:
        raise JobError(
            f"{name} makes inputs of {size[0]} x {size[1]} pixels, and the arrays of the dataset "
            f"have the shape {list(shape)}; arrays are not resized. Register a dataset with the "
            f"inputs that the model was trained with. {processors.INSTEAD}"
        )
