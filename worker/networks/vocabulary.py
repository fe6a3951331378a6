"""Token ids that a network has no embedding for are refused before they reach it.

On a GPU such an id would end the process; on a CPU the message would not say what to do.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from domain.errors import JobError

ADVICE = "Store the ids that the network's own tokenizer gives."


def require_known(module: nn.Module, inputs: Mapping[str, Any], names: list[str] | None) -> None:
    """Compare the ids of a whole dataset with a transformers network's vocabulary.

    Args:
        inputs: what the dataset's report says of its inputs.
        names: those of the network's inputs, if there are several.

    Raises:
        JobError: some ids lie outside.
    """
    entry = getattr(module, "get_input_embeddings", None)
    if entry is None or "highest" not in inputs:
        return
    place = 0 if names is None else names.index("input_ids")
    lowest, highest = inputs["lowest"][place], inputs["highest"][place]
    known = getattr(entry(), "num_embeddings", None)
    if known is not None and not 0 <= lowest <= highest < known:
        raise JobError(
            f"The dataset's token ids reach from {lowest} to {highest}, but the network knows the "
            f"ids from 0 to {known - 1}. {ADVICE}"
        )


@contextmanager
def checked(module: nn.Module) -> Iterator[None]:
    """Look at all ids on their way into an embedding. Makes the host wait for a GPU.

    Raises:
        JobError: an embedding gets an id that it has no row for.
    """

    def look(name: str, part: nn.Embedding, ids: Tensor) -> None:
        if ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) < part.num_embeddings:
            wrong = int(ids.min()) if int(ids.min()) < 0 else int(ids.max())
            raise JobError(
                f"The embedding {name!r} of the network knows the ids from 0 to "
                f"{part.num_embeddings - 1}, but the dataset has the id {wrong}. {ADVICE}"
            )

    with ExitStack() as hooks:
        for name, part in module.named_modules():
            if isinstance(part, nn.Embedding):
                hooks.enter_context(
                    part.register_forward_pre_hook(
                        lambda part, args, name=name: look(name, part, args[0])
                    )
                )
        yield
