"""Weights files: which one a location means, what it is made of, and how a network loads it.

Only safetensors: no pickle is opened. A network computes in the precision its architecture has,
which is float32 for `transformers`; weights in float16, bfloat16 and float64 are converted to it.
Whatever else a file holds for a floating parameter, such as the codes of a quantised model, is
refused, because it would load as if it were values.
"""

import json
import shutil
import struct
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_model
from torch import Tensor, nn

from domain import weights_formats
from domain.errors import JobError, LocationRefused
from domain.locations import require_file
from worker import budgets
from worker.networks import architectures, functions, json_files
from worker.store.artifacts import Store

LISTED = 5
"""The most tensor names that a message lists."""

WHOLE = "model.safetensors"
INDEX = ".safetensors.index.json"
NOT_WEIGHTS = ("optimizer", "scheduler", "random_states", "scaler", "training_args", "adapter_")
"""How the names of files begin that training leaves beside the weights."""

FLOATS = frozenset({"F16", "BF16", "F32", "F64"})
"""The floating types that are read, as safetensors calls them."""

INTEGERS = frozenset({"BOOL", "U8", "I8", "U16", "I16", "U32", "I32", "U64", "I64"})
NUMBERS = {"F": "float", "BF": "bfloat", "I": "int", "U": "uint", "C": "complex"}
"""What torch calls them, before the number of bits."""

ONLY_SAFETENSORS = (
    "Only safetensors weights are accepted; convert the weights with "
    "safetensors.torch.save_model(model, path)."
)
DEQUANTISE = (
    "the weights are quantised, and without their scales the codes are no values. Dequantise the "
    "model where you made it (in transformers: model.dequantize()), and export it in float32, "
    "float16 or bfloat16."
)


def files(location: Path, allow: Callable[[str], Path]) -> list[Path]:
    """The safetensors files at this location, each through `allow`: one, or all shards in order.

    In a directory it is what from_pretrained reads: `model.safetensors`, else the shards that
    `model.safetensors.index.json` names, else the only other file that can be weights.

    Args:
        location: a file, the index of shards, or a directory.
        allow: resolves a path, and raises JobError where it may not be read.

    Raises:
        JobError: there are none, it is not clear which, they are of another kind, or the index and
            its shards do not agree.
    """
    try:
        if location.is_dir():
            if (location / "adapter_config.json").exists():
                raise JobError(weights_formats.ADAPTER)
            location = _in_directory(location)
    except PermissionError as error:
        raise JobError(f"The worker may not read {location}; give it read permission.") from error
    if location.name.endswith(INDEX):
        return _shards(location, allow)
    found = allow(str(location))
    _header(found)
    return [found]


def store(to: Store, found: Sequence[Path]) -> str:
    """Store the weights as one file, whatever the number of shards; its digest.

    Shards are copied one after the other: memory does not grow with them.
    """
    if len(found) == 1:
        return to.add(found[0])
    return to.put(lambda path: _merge(found, path))


def dtypes(path: Path) -> dict[str, int]:
    """How many tensors the file has of each type, as torch calls it."""
    counts = Counter(dtype for dtype, _ in _header(path).values())
    return {_in_torch(dtype): count for dtype, count in sorted(counts.items())}


def load(module: nn.Module, path: Path) -> None:
    """Load all weights, strictly.

    Of names that are one tensor in the module, the file has one, or several with equal values.

    Raises:
        JobError: the file is not safetensors, does not fit the module, is quantised, or holds NaN
            or infinity.
    """
    found = _header(path)
    _require_values(module, {name: dtype for name, (dtype, _) in found.items()})
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
    if architectures.of_transformers(module):
        missing, unexpected, misshapen, tensors = as_transformers(module, tensors)
    else:
        missing, unexpected, misshapen = _as_module(module, tensors)
    _require_fit(missing=missing, unexpected=unexpected, misshapen=misshapen)
    with functions.users_code("Loading the weights"):
        module.load_state_dict(tensors, strict=False)
    _require_loaded(module, tensors)


def save(module: nn.Module, path: Path) -> None:
    """Write the weights as safetensors, under the names that users of the architecture expect."""
    if not architectures.of_transformers(module):
        save_model(module, str(path))
        return
    with tempfile.TemporaryDirectory(prefix=f"{path.name}-", dir=path.parent) as directory:
        module.save_pretrained(directory, max_shard_size="1000TB")  # type: ignore[operator]
        Path(directory, WHOLE).replace(path)


def _in_directory(directory: Path) -> Path:
    for name in (WHOLE, f"model{INDEX}"):
        if (directory / name).exists():
            return directory / name
    found = [
        file
        for file in sorted(directory.glob("*.safetensors"))
        if not file.name.startswith(NOT_WEIGHTS)
    ]
    if len(found) > 1:
        raise JobError(
            f"The weights lie in several files ({_listed([file.name for file in found])}), and "
            f"there is no model{INDEX} that says how they belong together. Save them again with "
            f"save_pretrained(directory), or leave only {WHOLE} there."
        )
    if found:
        return found[0]
    others = sorted(
        file.name
        for file in directory.iterdir()
        if file.suffix.lower() in weights_formats.OTHERS and not file.name.startswith(NOT_WEIGHTS)
    )
    instead = f" {weights_formats.advice(others[0])}" if others else ""
    beside = f", only {_listed(others)}" if others else ""
    raise JobError(f"There is no {WHOLE} in {directory}{beside}. {ONLY_SAFETENSORS}{instead}")


def _shards(index: Path, allow: Callable[[str], Path]) -> list[Path]:
    said = json_files.read(allow(str(index)), what="index of the weights")
    weight_map = said.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise JobError(
            f"{index.name} has no weight_map; save the model again with save_pretrained(directory)."
        )
    for name in weight_map.values():
        plain = isinstance(name, str) and Path(name).name == name
        if not plain or not name.endswith(".safetensors"):
            raise JobError(
                f"{index.name} names {str(name)[:100]!r}, which is not a safetensors file in its "
                "own directory. Save the model again with save_pretrained(directory)."
            )
    found = []
    for name in dict.fromkeys(weight_map.values()):
        shard = allow(str(index.parent / name))
        held = set(_header(shard))
        expected = {tensor for tensor, file in weight_map.items() if file == name}
        if held != expected:
            parts = (("lacks", expected - held), ("also has", held - expected))
            wrong = "; ".join(f"it {how} {_listed(sorted(names))}" for how, names in parts if names)
            raise JobError(
                f"{name} does not hold what {index.name} says ({wrong}). The shards are not of one "
                "model; save it again with save_pretrained(directory)."
            )
        found.append(shard)
    return found


def _merge(shards: Sequence[Path], path: Path) -> None:
    """Write one safetensors file with the tensors of all shards."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    starts, written = [], 0
    for shard in shards:
        with shard.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            described = json.loads(file.read(length))
        described.pop("__metadata__", None)
        for name, tensor in described.items():
            begin, end = tensor["data_offsets"]
            header[name] = {**tensor, "data_offsets": [begin + written, end + written]}
        starts.append(8 + length)
        written += shard.stat().st_size - starts[-1]
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)  # so that tensors are aligned, as the format's writers do
    with path.open("wb") as merged:
        merged.write(struct.pack("<Q", len(encoded)) + encoded)
        for shard, start in zip(shards, starts, strict=True):
            with shard.open("rb") as file:
                file.seek(start)
                shutil.copyfileobj(file, merged, 2**22)


def _in_torch(dtype: str) -> str:
    letters = dtype.rstrip("0123456789")
    return NUMBERS.get(letters, letters.lower()) + dtype[len(letters) :]


def _header(path: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Type and shape of each tensor, by name; no tensor is read."""
    try:
        require_file(path)
        budgets.require_small_header(path, ONLY_SAFETENSORS)
        with safe_open(path, framework="pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            return {
                name: (str(part.get_dtype()), tuple(part.get_shape()))
                for name, part in slices.items()
            }
    except LocationRefused as error:
        raise JobError(error.detail) from error
    except FileNotFoundError as error:
        raise JobError(f"There is no file {path}; put it back or correct the URI.") from error
    except PermissionError as error:
        raise JobError(f"The worker may not read {path}; give it read permission.") from error
    except SafetensorError as error:
        raise JobError(f"{path.name} is not a safetensors file. {ONLY_SAFETENSORS}") from error


def _require_values(module: nn.Module, found: dict[str, str]) -> None:
    """Refuse what would load as values and is none: codes, and floats of eight bits or fewer."""
    tensors = {**dict(module.named_buffers()), **module.state_dict()}
    tensors = {name: each for name, each in tensors.items() if isinstance(each, Tensor)}
    counters = {name.rpartition(".")[2] for name, each in tensors.items() if not _continuous(each)}
    codes = {}
    for name, dtype in found.items():
        known = tensors.get(name)
        if dtype in FLOATS:
            continue
        if dtype in INTEGERS and (
            name.rpartition(".")[2] in counters if known is None else not _continuous(known)
        ):
            continue
        if dtype.startswith("C") and known is not None and known.is_complex():
            continue
        codes[name] = dtype
    if codes:
        named = _listed([f"{name} as {dtype}" for name, dtype in codes.items()])
        raise JobError(
            f"The file holds {named}, where the architecture has floating parameters: {DEQUANTISE}"
        )


def _continuous(tensor: Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()


def _as_module(
    module: nn.Module, tensors: dict[str, Tensor]
) -> tuple[list[str], list[str], list[str]]:
    """What is missing, unexpected and misshapen in a file for a `python` architecture."""
    with functions.users_code("The architecture"):
        expected = {
            name: tensor for name, tensor in module.state_dict().items()
            if isinstance(tensor, Tensor)
        }  # fmt: skip
        misshapen = [
            f"{name} {tuple(tensor.shape)} instead of {tuple(expected[name].shape)}"
            for name, tensor in tensors.items()
            if name in expected and tensor.shape != expected[name].shape
        ]
    filled = {_place(expected[name]) for name in tensors if name in expected}
    whole = {_place(expected[name])[0] for name in tensors if name in expected
             and expected[name].nbytes == expected[name].untyped_storage().nbytes()}  # fmt: skip
    missing = [
        name
        for name, tensor in expected.items()
        if name not in tensors
        and not (tensor.nbytes and (_place(tensor) in filled or _place(tensor)[0] in whole))
    ]
    return missing, [name for name in tensors if name not in expected], misshapen


def _place(tensor: Tensor) -> tuple[int, int, tuple[int, ...], tuple[int, ...]]:
    """Where a tensor's values are: equal for two names of one tensor."""
    storage = tensor.untyped_storage().data_ptr()
    return storage, int(tensor.storage_offset()), tuple(tensor.shape), tensor.stride()


def as_transformers(
    module: nn.Module, tensors: dict[str, Tensor]
) -> tuple[list[str], list[str], list[str], dict[str, Tensor]]:
    """The same for `transformers`, and the tensors under the names that they have in memory.

    These differ from those in the file since version 5, and only `from_pretrained` can translate
    them (tests/worker/networks/test_architectures.py).
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
    misshapen = [
        f"{name} {tuple(found)} instead of {tuple(expected)}"
        for name, found, expected in report["mismatched_keys"]
    ]
    missing, unexpected = report["missing_keys"], report["unexpected_keys"]
    return sorted(missing), sorted(unexpected), sorted(misshapen), loaded.state_dict()


def _require_loaded(module: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Refuse weights of which the module does not hold every value after they were loaded."""
    now = module.state_dict()
    lost, unequal = [], []
    for name, tensor in tensors.items():
        held = now[name]
        if not _continuous(held):
            exact = 2 / torch.finfo(tensor.dtype).eps if tensor.is_floating_point() else None
            if not torch.equal(held.to(tensor.dtype), tensor) or (
                exact is not None and tensor.numel() and tensor.abs().max() > exact
            ):
                lost.append(f"{name} as {tensor.dtype} instead of {held.dtype}")
        elif not torch.equal(held, tensor.to(held.dtype)):
            unequal.append(name)
        elif not held.isfinite().all():
            lost.append(f"{name} with values too large for {held.dtype}")
    if unequal:
        place = now[unequal[0]].untyped_storage().data_ptr()
        names = [n for n in tensors if now[n].untyped_storage().data_ptr() == place]
        raise JobError(
            f"The architecture ties {_listed(names)}: they are one tensor, but the file holds "
            "different values for them. If they were trained apart, register an architecture that "
            "does not tie them (tie_word_embeddings=false in a transformers config); if they were "
            "tied, export them again from the trained model with "
            "safetensors.torch.save_model(model, path)."
        )
    if lost:
        raise JobError(
            f"The network cannot hold some values as they are in the file: {_listed(lost)}. Export "
            "the weights again with the types that the architecture has."
        )


def _require_fit(**misfits: Iterable[str]) -> None:
    found = {what: sorted(names) for what, names in misfits.items()}
    if any(found.values()):
        parts = "; ".join(f"{what}: {_listed(names)}" for what, names in found.items() if names)
        adapter = any(".lora_" in name for name in found["unexpected"])
        raise JobError(
            f"The weights do not fit the architecture ({parts}). "
            + (
                "They are those of an adapter (LoRA): merge it into its base model with "
                "model.merge_and_unload(), and save the result."
                if adapter
                else "Register the architecture they were trained with."
            )
        )


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more
