"""Whether a network is a public one, but for its head: every other tensor the same, bit for bit.

Names may differ by what stands before them: a classifier calls `bert.encoder…` what the file of the
network that it was made from calls `encoder…`. That a name is matched wrongly can do no harm, since
what is matched must be equal.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from domain.errors import JobError
from worker.networks import architectures, functions, weights

LISTED = 5
"""The most tensor names that a message lists."""

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
"""What batch normalisation changes in training mode, whether it is frozen or not."""


def require_linear(module: nn.Module, head: str) -> nn.Linear:
    """The head, which must be one linear module that shares nothing with the rest.

    Raises:
        JobError: it is another kind of module, or tied to other weights.
    """
    found = module.get_submodule(head)
    if not isinstance(found, nn.Linear) or set(found.state_dict()) - {"weight", "bias"}:
        raise JobError(
            f"The head {head!r} is a {type(found).__name__}; only one linear module can be fitted "
            "anew on a backbone. Name the last linear module as the head, or register the model "
            "without `backbone` and with a recipe that trains it whole."
        )
    mine = {parameter.untyped_storage().data_ptr() for parameter in found.parameters()}
    tied = [
        name
        for name, tensor in module.state_dict().items()
        if not _is_of(name, head) and tensor.untyped_storage().data_ptr() in mine
    ]
    if tied:
        raise JobError(
            f"The head {head!r} shares its weights with {_listed(tied)}, so it cannot be fitted "
            "anew while the backbone stays. Register an architecture that does not tie them."
        )
    return found


def require_equal(module: nn.Module, head: str, files: Sequence[Path]) -> int:
    """Compare all tensors but the head's with those in the backbone's files; how many they are.

    Values are compared in the precision in which the network computes, so a backbone in float16 is
    equal to one that was widened from it.

    Args:
        module: with the weights that were registered.
        files: one safetensors file, or all shards.

    Raises:
        JobError: a tensor differs, or the backbone lacks it; the message names it.
    """
    mine = {name: tensor for name, tensor in module.state_dict().items() if not _is_of(name, head)}
    if not mine:
        raise JobError(
            "The network has nothing but its head, so there is no backbone to compare; register "
            "it without `backbone`."
        )
    known = _as_named(
        module, mine, {name: t for file in files for name, t in load_file(file).items()}
    )
    places = {_place(mine[name]) for name in known}  # of tied tensors, one name is enough
    lacking = [name for name, t in mine.items() if name not in known and _place(t) not in places]
    other = [name for name, found in known.items() if not _same_bits(mine[name], found)]
    if other or lacking:
        raise JobError(_refusal(other, lacking, len(mine)))
    return len(mine)


def _refusal(other: Sequence[str], lacking: Sequence[str], count: int) -> str:
    found = [f"{len(other)} of {count} tensors differ ({_listed(other)})"] if other else []
    if lacking:
        found.append(f"{len(lacking)} of {count} are not in its file ({_listed(lacking)})")
    text = f"The network is not its backbone with another head: {', and '.join(found)}. "
    if any(name.endswith(STATISTICS) for name in other):
        text += (
            "Statistics of batch normalisation change whenever the network is in training mode: "
            "keep all but the head in evaluation mode while you train it. "
        )
    return text + (
        "Train the head alone, with requires_grad_(False) on everything else, and register that; "
        "or name the backbone that it was trained on; or register the model without `backbone` and "
        "with a recipe that trains it whole."
    )


def _as_named(
    module: nn.Module, mine: Mapping[str, Tensor], stored: dict[str, Tensor]
) -> dict[str, Tensor]:
    """The backbone's tensors under the names that they have in the network."""
    if architectures.of_transformers(module):
        missing, _, _, loaded = weights.as_transformers(module, stored)
        misshapen = {n for n in mine if n in loaded and loaded[n].shape != mine[n].shape}
        absent = {*missing, *misshapen}
        return {name: loaded[name] for name in mine if name in loaded and name not in absent}
    before, instead = _prefixes(list(mine), list(stored))
    renamed = {
        instead + name.removeprefix(before): tensor
        for name, tensor in stored.items()
        if name.startswith(before)
    }
    return {name: renamed[name] for name in mine if name in renamed}


def _prefixes(mine: Sequence[str], stored: Sequence[str]) -> tuple[str, str]:
    """What most stored names begin with, and what the network's have in its place."""
    of_last: dict[str, list[str]] = {}
    for name in stored:
        of_last.setdefault(".".join(name.split(".")[-2:]), []).append(name)
    found: Counter[tuple[str, str]] = Counter()
    for name in mine:
        for other in of_last.get(".".join(name.split(".")[-2:]), ()):
            same = _common_end(name, other)
            found[other[: len(other) - same], name[: len(name) - same]] += 1
    return found.most_common(1)[0][0] if found else ("", "")


def _common_end(left: str, right: str) -> int:
    """How many characters of whole parts two dotted names have in common at their ends."""
    length = 0
    for a, b in zip(reversed(left.split(".")), reversed(right.split(".")), strict=False):
        if a != b:
            break
        length += len(a) + 1
    return min(length, len(left), len(right))


def _same_bits(held: Tensor, found: Tensor) -> bool:
    if held.shape != found.shape:
        return False
    with functions.users_code("Comparing the weights"):
        mine, theirs = held.detach().cpu().contiguous(), found.to(held.dtype).contiguous()
    if not mine.numel():
        return True
    return torch.equal(mine.flatten().view(torch.uint8), theirs.flatten().view(torch.uint8))


def _place(tensor: Tensor) -> tuple[int, int, tuple[int, ...], tuple[int, ...]]:
    storage = tensor.untyped_storage().data_ptr()
    return storage, int(tensor.storage_offset()), tuple(tensor.shape), tensor.stride()


def _is_of(name: str, head: str) -> bool:
    return name.startswith(f"{head}.")


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more
