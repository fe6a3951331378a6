"""Networks that take several sequences: stored as one tensor, they arrive by name.

Shapes: N samples, K named inputs, L ids each.
"""

import inspect
from collections.abc import Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn

from domain.errors import JobError

NAMES = "lethe_names_of_inputs"
"""An attribute with the names, in the order in which the inputs are stored; copies keep it."""

VARIABLE = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)


def take_by_name(module: nn.Module, names: Sequence[str], *, strict: bool) -> None:
    """Have the module, called with (N, K, L), get K keyword arguments (N, L) with these names.

    Args:
        strict: whether `**kwargs` of the network's `forward` do not count: those of transformers
            ignore what they do not know.

    Raises:
        JobError: the network has no argument of one of the names.
    """
    arguments = inspect.signature(module.forward).parameters
    takes = [name for name, each in arguments.items() if each.kind not in VARIABLE]
    open_ended = any(each.kind is each.VAR_KEYWORD for each in arguments.values()) and not strict
    unknown = [name for name in names if name not in takes and not open_ended]
    if unknown or (strict and "input_ids" not in names):
        wrong = unknown[0] if unknown else "input_ids"
        raise JobError(
            f"The network {'takes no argument' if unknown else 'needs the argument'} {wrong!r}; it "
            f"takes {', '.join(takes[:12])}. Register the dataset with a columns.input that names "
            "these; null leaves a column out."
        )
    module.__dict__[NAMES] = list(names)
    module.register_forward_pre_hook(
        partial(_by_name, names=list(names)), prepend=True, with_kwargs=True
    )


def ids_of(module: nn.Module, inputs: Tensor) -> Tensor:
    """The token ids (N, L) among the inputs of a sequence network: its `input_ids`, or all."""
    names = module.__dict__.get(NAMES)
    return inputs if names is None else inputs[:, names.index("input_ids")]


def _by_name(
    _: nn.Module, args: tuple[Tensor, ...], __: dict[str, Any], *, names: Sequence[str]
) -> tuple[tuple[()], dict[str, Tensor]]:
    (inputs,) = args
    return (), dict(zip(names, inputs.unbind(1), strict=True))
