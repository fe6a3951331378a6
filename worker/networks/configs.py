"""What of a transformers config.json is believed: plain values, and nothing that names code.

A config is a stranger's file, and the library sets every key of it as an attribute, so that a key
may choose an attention kernel from a hub, a backbone to download, or code. Three rules, applied at
every depth, do not depend on knowing each such key:

- a key that begins with `_`, or that is a method or a constant of the config's class, is dropped;
- text that could name another place (it holds `/`, `\\` or `:`) is dropped, wherever it stands;
- keys that only say how to compute, not what, are dropped by name.

Other keys are kept even if the class does not declare them, since networks read them all the same:
without `norm_rel_ebd`, DeBERTa computes something else. What cannot be dropped without building
another network than the one that was trained is refused.
"""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from domain.errors import JobError

DEEPEST = 16
"""The most levels of a config."""

NAMES = frozenset({"id2label", "label2id"})
"""Keys with texts for people, which may hold any character."""

HOW = frozenset({
    "allow_all_kernels", "attn_implementation", "auto_map", "configuration_files",
    "custom_pipelines", "device_map", "dtype", "experts_implementation", "extra_config_files",
    "extra_files", "kernel_config", "name_or_path", "output_attentions", "output_hidden_states",
    "return_dict", "task_specific_params", "tokenizer_class", "torch_dtype", "torchscript",
    "transformers_weights", "trust_remote_code", "use_kernels", "use_pretrained_backbone",
    "use_return_dict",
})  # fmt: skip
"""Keys that say how to compute or where to look. Lethe computes in float32 with its own kernels."""

MEANT_FOR_CODE = ("implementation", "remote_code", "kernel_config", "auto_map", "hub_")
"""Parts of names of keys that are dropped like these, in this release of the library or another."""

QUANTISED = (
    "The config has a {key}: the weights are quantised, and cannot be trained. Dequantise the "
    "model where you made it (model.dequantize()), and save it in float32, float16 or bfloat16 "
    "with save_pretrained(directory)."
)


def cleaned(config: dict[str, Any]) -> dict[str, Any]:
    """The config without anything that could load code, choose kernels or reach for the network.

    Cleaning twice changes nothing.

    Raises:
        JobError: it names no model_type, or describes quantised weights, a backbone by its name
            only, or a network that is no classifier of one label per sample.
    """
    if not isinstance(config.get("model_type"), str):
        raise JobError(
            "The config.json names no model_type, so it is not one that transformers wrote. "
            "Register a model of timm, or of another library, with a factory that builds it "
            "(architecture kind `python`)."
        )
    return _cleaned(config, _class(config["model_type"]), 0)


def decoded(value: Any) -> Any:
    """The config with the numbers that JSON has not, which are written `{"__float__": "NaN"}`."""
    if isinstance(value, dict):
        if set(value) == {"__float__"}:
            return float(str(value["__float__"]).replace("Infinity", "inf"))
        return {key: decoded(each) for key, each in value.items()}
    return [decoded(each) for each in value] if isinstance(value, list) else value


def class_names(config: dict[str, Any]) -> list[str] | None:
    """The names of the outputs in their order; None where the config has only placeholders.

    Raises:
        JobError: `id2label` and `label2id` contradict each other, or do not number the outputs.
    """
    by_number = _numbered(config.get("id2label"), "id2label")
    by_name = _numbered(_turned(config.get("label2id")), "label2id")
    known = [names for names in (by_number, by_name) if names and not _placeholders(names)]
    if len(known) == 2 and known[0] != known[1]:
        raise JobError(
            f"id2label and label2id in the config.json contradict each other "
            f"({_first_difference(*known)}). Correct the one that is wrong."
        )
    return known[0] if known else None


def _turned(numbers: Any) -> Any:
    """`label2id` as names by number; what is no such object stays as it is."""
    if not isinstance(numbers, dict):
        return numbers
    turned: dict[str, str] = {}
    for name, number in numbers.items():
        if str(number) in turned:
            raise JobError(
                f"label2id in the config.json gives {turned[str(number)]!r} and {name!r} the same "
                "number; correct it."
            )
        turned[str(number)] = name
    return turned


def _numbered(names: Any, key: str) -> list[str] | None:
    if not names:
        return None
    try:
        by_number = {int(number): name for number, name in names.items()}
        return [str(by_number[number]) for number in range(len(names))]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise JobError(
            f"{key} in the config.json does not number the classes from 0; correct it."
        ) from error


def _placeholders(names: list[str]) -> bool:
    return all(name == f"LABEL_{number}" for number, name in enumerate(names))


def _first_difference(one: list[str], other: list[str]) -> str:
    for place, (first, second) in enumerate(zip(one, other, strict=False)):
        if first != second:
            return f"class {place} is {first!r} in one and {second!r} in the other"
    return f"one has {len(one)} classes, the other {len(other)}"


def _cleaned(config: dict[str, Any], cls: type | None, depth: int) -> dict[str, Any]:
    if depth > DEEPEST:
        raise JobError(f"The config.json has more than {DEEPEST} levels; save the model again.")
    _refuse(config, cls)
    return {
        key: value if key in NAMES else _value(value, _of_part(cls, key, value), depth)
        for key, value in config.items()
        if _is_kept(key, value, cls)
    }


def _refuse(config: dict[str, Any], cls: type | None) -> None:
    for key in ("quantization_config", "compression_config"):
        if config.get(key):
            raise JobError(QUANTISED.format(key=key))
    if config.get("backbone") and "backbone" not in _declared(cls):
        raise JobError(
            f"The config names the backbone {str(config['backbone'])[:100]!r}, whose description "
            "would have to be downloaded. Save the model with a backbone_config that describes it."
        )
    problem = config.get("problem_type")
    if problem not in (None, "single_label_classification"):
        raise JobError(
            f"The config says problem_type {str(problem)[:50]!r}, but models that can be "
            "registered give each sample one class (single_label_classification)."
        )


def _is_kept(key: str, value: Any, cls: type | None) -> bool:
    if key in HOW or any(part in key for part in MEANT_FOR_CODE):
        return False
    if key.startswith("_") and not (key == "__float__" and cls is None):
        return False
    if key in ("quantization_config", "compression_config", "backbone") and not value:
        return False
    if isinstance(value, str) and _names_a_place(value):
        return False
    known = getattr(cls, key, None) if cls is not None else None
    settable = isinstance(known, property) and known.fset is not None
    return known is None or settable or key == "model_type" or key in _declared(cls)


def _value(value: Any, cls: type | None, depth: int) -> Any:
    if isinstance(value, dict):
        return _cleaned(value, cls, depth + 1)
    if isinstance(value, list):
        if depth > DEEPEST:
            raise JobError(f"The config.json has more than {DEEPEST} levels; save the model again.")
        return [
            _value(each, cls, depth + 1)
            for each in value
            if not (isinstance(each, str) and _names_a_place(each))
        ]
    return value


def _names_a_place(text: str) -> bool:
    return any(sign in text for sign in "/\\:")


def _class(model_type: Any) -> type | None:
    """The library's class for this type of config; None where it has none."""
    from transformers import CONFIG_MAPPING

    known = isinstance(model_type, str) and model_type in CONFIG_MAPPING
    return CONFIG_MAPPING[model_type] if known else None


def _of_part(cls: type | None, key: str, value: Any) -> type | None:
    """The class of a nested config."""
    from transformers import PreTrainedConfig

    named = _class(value.get("model_type")) if isinstance(value, dict) else None
    parts: Mapping[str, type] = getattr(cls, "sub_configs", None) or {}
    part = parts.get(key)
    if named is None and isinstance(part, type) and issubclass(part, PreTrainedConfig):
        return part
    return named


def _declared(cls: type | None) -> frozenset[str]:
    """The keys that the class takes as its own."""
    if cls is None:
        return frozenset()
    mapped: dict[str, str] = getattr(cls, "attribute_map", {})
    own = {field.name for field in fields(cls)} if is_dataclass(cls) else set()
    return frozenset(own | {key for key in mapped if not key.startswith("_")})
