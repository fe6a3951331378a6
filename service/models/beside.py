"""What a registration says of the files beside the weights, and what was found there.

Classes and preprocessing are in such files. What was declared is kept as it was sent, because
registration completes it.
"""

from pathlib import Path
from typing import Any, Literal

from domain import weights_formats
from domain.errors import WeightsRefused
from domain.tables import Model
from service.fields import ClassNames, In, Out


class Declared(In):
    """What may be declared where the files beside the weights do not say it, or say it wrongly."""

    preprocessing_source: Literal["declared"] | None = None
    """Set it to `declared` if the files beside the weights do not describe the preprocessing that
    the model was trained with. Then they are not read, and `preprocessing` has to be complete."""

    classes: ClassNames | None = None
    """The names of the network's outputs, in their order. Without it they are read from `id2label`
    in the `config.json` beside the weights, if these are names. They are compared with the names
    of the dataset's classes."""

    map_classes: bool = False
    """Whether to translate the dataset's labels into the model's order of the classes, where the
    same names are in another order. Otherwise such a model is refused."""


class FoundRead(Out):
    """What is known of classes and preprocessing, and where it is from."""

    preprocessing_source: str | None = None
    """Where the preprocessing is from: `declared`, `default`, or the name of the file beside the
    weights that was read. Null until the model is `ready`, unless it was declared."""

    classes: list[str] | None = None
    """The names of the network's outputs, in their order; null if they are not known, so that they
    cannot be compared with the dataset's."""

    classes_source: str | None = None
    """Where the names are from: `declared`, or `config.json`; null if they are not known."""


def declared(wanted: Declared, preprocessing: dict[str, Any]) -> dict[str, Any]:
    """What registration compares with the files beside the weights, as it was sent."""
    sent = wanted.model_dump(mode="json", include=set(Declared.model_fields))
    return {**sent, "preprocessing": preprocessing}


def declared_before(preprocessing: dict[str, Any]) -> dict[str, Any]:
    """The same for a model of an earlier release, which could declare nothing else."""
    return {**Declared().model_dump(mode="json"), "preprocessing": preprocessing}


def options(preprocessing: dict[str, Any]) -> dict[str, Any]:
    """The preprocessing without the order of the labels, which registration adds."""
    return {name: value for name, value in preprocessing.items() if name != "labels"}


def answer(model: Model) -> dict[str, Any]:
    """What was declared, or what was found once the model is ready."""
    sent = model.declared or declared_before(model.preprocessing)
    known = model.found or {
        "preprocessing_source": sent["preprocessing_source"],
        "classes": sent["classes"],
        "classes_source": "declared" if sent["classes"] else None,
    }
    return {**known, "map_classes": sent["map_classes"]}


def check_weights(kind: str, path: Path) -> None:
    """Refuse weights whose name says that they are no safetensors, with advice.

    Raises:
        WeightsRefused: they are of another format, or another kind of location is needed.
    """
    if kind == "python":
        if not path.name.endswith((".safetensors", ".safetensors.index.json")):
            raise WeightsRefused(
                "Only safetensors weights are accepted: name one `.safetensors` file, or the "
                f"`.safetensors.index.json` of its shards. {weights_formats.advice(path.name)}"
            )
    elif path.suffix == ".safetensors":
        raise WeightsRefused(
            "Only safetensors weights are accepted: name the directory that holds `config.json` "
            "and `model.safetensors`, as save_pretrained wrote it."
        )
    elif path.suffix.lower() in weights_formats.OTHERS:
        raise WeightsRefused(
            "Only safetensors weights are accepted: name the directory that holds `config.json` "
            f"and `model.safetensors`. {weights_formats.advice(path.name)}"
        )
