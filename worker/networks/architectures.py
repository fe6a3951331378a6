"""Builds a network that returns logits from a registered architecture and a weights file.

Two kinds: `python`, a factory on the operator's allow-list, and `transformers`, a configuration
of a classifier that the installed library knows. No pickle, no remote code, no network.
"""

import json
import os
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"  # a config may name a backbone to download

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, load_model, save_model
from torch import Tensor, nn

from domain.errors import JobError, LocationRefused
from domain.locations import require_file
from worker import budgets
from worker.networks import functions, named_inputs

ANSWERS_WITH_LOGITS = "lethe_answers_with_logits"
"""An attribute that marks networks built from a transformers config; copies keep it."""

LISTED = 5
"""The most tensor names that a message lists."""

ONLY_SAFETENSORS = (
    "Only safetensors weights are accepted; convert the weights with "
    "safetensors.torch.save_model(model, path)."
)


def completed(architecture: dict[str, Any], location: Path) -> dict[str, Any]:
    """The architecture with everything needed to build it without the directory of its weights.

    Raises:
        JobError: a transformers model has no readable config.json beside its weights.
    """
    if architecture["kind"] != "transformers":
        return architecture
    try:
        config = json.loads(config_file(location).read_text())
    except (OSError, ValueError) as error:
        raise JobError(
            f"No readable config.json beside the weights ({type(error).__name__}); register the "
            "directory that save_pretrained wrote."
        ) from error
    return {**architecture, "config": config}


def config_file(location: Path) -> Path:
    """The location of a transformers model's config: the directory of its weights."""
    return (location if location.is_dir() else location.parent) / "config.json"


def weights_file(location: Path) -> Path:
    """The one safetensors file at this location, which is the file or its directory.

    Raises:
        JobError: there is none, there are several, or the file is of another kind.
    """
    file = location
    if location.is_dir():
        found = sorted(location.glob("*.safetensors"))
        if len(found) > 1:
            raise JobError(
                "The weights lie in several files; save them as one, with "
                "save_pretrained(directory, max_shard_size='1TB')."
            )
        if not found:
            raise JobError(f"There is no *.safetensors file in {location}. {ONLY_SAFETENSORS}")
        file = found[0]
    _tensor_names(file)
    return file


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
        strict = _of_transformers(module)
        named_inputs.take_by_name(module, architecture["inputs"], strict=strict)
    return module.eval()


def pooling(module: nn.Module, head: str) -> Callable[[Tensor, Tensor], Tensor] | None:
    """How a transformers decoder picks one vector per sequence: at its last real token.

    Its linear head is applied to every token, and the logits at the last non-padding token count.
    None for any other network: its head already gets one vector.
    """
    parts = dict(module.named_modules())
    if not _of_transformers(module) or not isinstance(parts.get(head), nn.Linear):
        return None
    padding = getattr(module.config, "pad_token_id", None)

    def last_token(entered: Tensor, inputs: Tensor) -> Tensor:
        tokens = named_inputs.ids_of(module, inputs)  # (N, T)
        places = torch.arange(tokens.shape[1], device=tokens.device)
        real = torch.ones_like(tokens) if padding is None else (tokens != padding).long()
        last = (places * real).argmax(1)  # (N,)
        return entered[torch.arange(len(entered), device=entered.device), last]

    return last_token


def load_weights(module: nn.Module, path: Path) -> None:
    """Load all weights, strictly; tensors that are tied in the module occur once in the file.

    Raises:
        JobError: the file is not safetensors, does not fit the module, or holds NaN or infinity.
    """
    _tensor_names(path)
    tensors = load_file(path)
    infinite = [
        name
        for name, tensor in tensors.items()
        if tensor.is_floating_point() and not tensor.isfinite().all()
    ]
    if infinite:
        raise JobError(
            f"The weights hold NaN or infinite values, in {_listed(infinite)}; export them again."
        )
    if _of_transformers(module):
        missing, unexpected, misshapen = _load_as_transformers(module, tensors)
    else:
        expected = module.state_dict()
        misshapen = [
            f"{name} {tuple(tensor.shape)} instead of {tuple(expected[name].shape)}"
            for name, tensor in tensors.items()
            if name in expected and tensor.shape != expected[name].shape
        ]
        missing, unexpected = ((), ()) if misshapen else load_model(module, path, strict=False)
    _require_fit(missing=missing, unexpected=unexpected, misshapen=misshapen)


def save_weights(module: nn.Module, path: Path) -> None:
    """Write the weights as safetensors, under the names that users of the architecture expect."""
    if not _of_transformers(module):
        save_model(module, str(path))
        return
    with tempfile.TemporaryDirectory(prefix=f"{path.name}-", dir=path.parent) as directory:
        module.save_pretrained(directory, max_shard_size="1000TB")  # type: ignore[operator]
        Path(directory, "model.safetensors").replace(path)


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
    with functions.users_code("The transformers config"):
        known = transformers.AutoConfig.for_model(**config)
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


def _of_transformers(module: nn.Module) -> bool:
    return ANSWERS_WITH_LOGITS in module.__dict__


def _load_as_transformers(
    module: nn.Module, tensors: dict[str, Tensor]
) -> tuple[Sequence[str], Sequence[str], Sequence[str]]:
    """Load by the names in the file, which differ from those in memory since version 5.

    Only `from_pretrained` can translate them (tests/worker/networks/test_architectures.py).
    """
    with functions.users_code("Loading the weights"):
        loaded, report = type(module).from_pretrained(  # type: ignore[attr-defined]
            None,
            config=module.config,
            state_dict=tensors,
            dtype=torch.float32,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    module.load_state_dict(loaded.state_dict())
    misshapen = [
        f"{name} {tuple(found)} instead of {tuple(expected)}"
        for name, found, expected in report["mismatched_keys"]
    ]
    return sorted(report["missing_keys"]), sorted(report["unexpected_keys"]), sorted(misshapen)


def _tensor_names(path: Path) -> list[str]:
    try:
        require_file(path)
        budgets.require_small_header(path)
        with safe_open(path, framework="pt") as file:
            return list(file.keys())
    except LocationRefused as error:
        raise JobError(error.detail) from error
    except FileNotFoundError as error:
        raise JobError(f"There is no file {path}; put it back or correct the URI.") from error
    except PermissionError as error:
        raise JobError(f"The worker may not read {path}; give it read permission.") from error
    except SafetensorError as error:
        raise JobError(f"{path.name} is not a safetensors file. {ONLY_SAFETENSORS}") from error


def _require_fit(**misfits: Iterable[str]) -> None:
    found = {what: sorted(names) for what, names in misfits.items()}
    if any(found.values()):
        parts = "; ".join(f"{what}: {_listed(names)}" for what, names in found.items() if names)
        raise JobError(
            f"The weights do not fit the architecture ({parts}). Register the architecture they "
            "were trained with."
        )


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more
