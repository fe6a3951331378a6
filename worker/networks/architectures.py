"""Builds a network that returns logits from a registered architecture.

Two kinds: `python`, a factory on the operator's allow-list, and `transformers`, a configuration
of a classifier that the installed library knows. No pickle, no remote code, no network.
"""

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"  # a config may name a backbone to download

import torch
from torch import Tensor, nn

from domain.errors import JobError
from worker.networks import configs, functions, json_files, named_inputs

ANSWERS_WITH_LOGITS = "lethe_answers_with_logits"
"""An attribute that marks networks built from a transformers config; copies keep it."""


def completed(
    architecture: dict[str, Any], location: Path, allow: Callable[[str], Path] = Path
) -> dict[str, Any]:
    """The architecture with everything needed to build it without the directory of its weights.

    Args:
        allow: resolves a path, and raises JobError where it may not be read.

    Raises:
        JobError: a transformers model has no readable config.json beside its weights, or one that
            asks for something the service cannot build.
    """
    if architecture["kind"] != "transformers":
        return architecture
    beside = (location if location.is_dir() else location.parent) / "config.json"
    config = json_files.read(allow(str(beside)), what="configuration save_pretrained writes")
    return {**architecture, "config": configs.cleaned(config)}


def build(architecture: dict[str, Any], allowed: Iterable[str]) -> nn.Module:
    """The untrained network, in evaluation mode; calling it with inputs returns logits.

    The submodules of a transformers network keep the names the library gives them, so its head is
    "classifier", not "model.classifier". It always computes in float32, whatever its config says.

    Args:
        architecture: as returned by `completed`; `inputs` are the names of several inputs.
        allowed: `package.module:factory` or `package.module:*`, from the settings.

    Raises:
        JobError: the factory is not allowed or fails, or the config is not a classifier's.
    """
    if architecture["kind"] == "transformers":
        module = _from_config(architecture["config"])
    else:
        module = _from_factory(architecture["factory"], architecture.get("arguments"), allowed)
    if next(module.parameters(), None) is None:
        raise JobError(
            "The architecture has no parameters, so there is nothing to unlearn; register a "
            "trainable network."
        )
    if "inputs" in architecture:
        strict = of_transformers(module)
        named_inputs.take_by_name(module, architecture["inputs"], strict=strict)
    return module.eval()


def pooling(module: nn.Module, head: str) -> Callable[[Tensor, Tensor], Tensor] | None:
    """How a transformers decoder picks one vector per sequence: at its last real token.

    Its linear head is applied to every token, and the logits at the last non-padding token count.
    None for any other network: its head already gets one vector.
    """
    parts = dict(module.named_modules())
    if not of_transformers(module) or not isinstance(parts.get(head), nn.Linear):
        return None
    padding = getattr(module.config, "pad_token_id", None)

    def last_token(entered: Tensor, inputs: Tensor) -> Tensor:
        tokens = named_inputs.ids_of(module, inputs)  # (N, T)
        places = torch.arange(tokens.shape[1], device=tokens.device)
        real = torch.ones_like(tokens) if padding is None else (tokens != padding).long()
        last = (places * real).argmax(1)  # (N,)
        return entered[torch.arange(len(entered), device=entered.device), last]

    return last_token


def of_transformers(module: nn.Module) -> bool:
    """Whether the network was built from a transformers config; a copy of it was, too."""
    return ANSWERS_WITH_LOGITS in module.__dict__


def load_factory(name: str, allowed: Iterable[str]) -> Callable[..., Any]:
    """The factory with this name.

    Args:
        name: `package.module:factory`.
        allowed: such names, or `package.module:*`, from the settings.

    Raises:
        JobError: the factory is not allowed, or cannot be imported.
    """
    return functions.load("factory", name, allowed, setting="LETHE_FACTORIES")


def _from_factory(
    factory: str, arguments: dict[str, Any] | None, allowed: Iterable[str]
) -> nn.Module:
    function = load_factory(factory, allowed)
    with functions.users_code(f"The factory {factory!r}"):
        network = function(**(arguments or {}))
    if not isinstance(network, nn.Module):
        kind = type(network).__name__
        raise JobError(
            f"The factory {factory!r} returned a {kind}; make it return a torch.nn.Module."
        )
    return network


def _from_config(config: dict[str, Any]) -> nn.Module:
    import transformers  # `python` architectures are spared these four seconds

    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    transformers.utils.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    config = configs.cleaned(config)  # rows of older releases hold them as they were found
    with functions.users_code("The transformers config"):
        known = transformers.AutoConfig.for_model(**configs.decoded(config))
        for suffix, auto, mapping in (
            (
                "ForImageClassification",
                transformers.AutoModelForImageClassification,
                transformers.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING,
            ),
            (
                "ForSequenceClassification",
                transformers.AutoModelForSequenceClassification,
                transformers.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
            ),
        ):
            named = config.get("architectures") or [suffix]
            if type(known) in mapping and named[0].endswith(suffix):
                module: nn.Module = auto.from_config(  # type: ignore[no-untyped-call]
                    known, trust_remote_code=False, dtype=torch.float32
                )
                break
        else:
            raise JobError(
                "The transformers config is not that of an image or sequence classifier; register "
                "a model of a ...ForImageClassification or ...ForSequenceClassification class."
            )
    built = type(module).__name__
    if config.get("architectures") and named[0] != built:
        raise JobError(
            f"The config says that a {named[0]} was trained, which transformers does not have; for "
            f"this model_type it has {built}, which may compute something else. Register the "
            "network with a factory (architecture kind `python`), or train the library's class."
        )
    # Hooks rather than a wrapper: the names of the submodules stay as they are.
    module.register_forward_pre_hook(_named_inputs, with_kwargs=True)
    module.register_forward_hook(_logits)
    module.__dict__[ANSWERS_WITH_LOGITS] = True
    return module


def _named_inputs(
    module: nn.Module, args: tuple[Tensor, ...], named: dict[str, Any]
) -> tuple[tuple[()], dict[str, Any]]:
    """Pixels or ids under their names. Without a mask, all ids but those of padding count."""
    if args and args[0].is_floating_point():
        return (), {"pixel_values": args[0]}
    ids = args[0] if args else named["input_ids"]
    padding = getattr(module.config, "pad_token_id", None)
    attended = torch.ones_like(ids) if padding is None else (ids != padding).long()
    return (), {"attention_mask": attended, "input_ids": ids, **named}


def _logits(_: nn.Module, __: Any, output: Any) -> Tensor:
    return output.logits  # type: ignore[no-any-return]
