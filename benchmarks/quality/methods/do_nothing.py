"""The original, unchanged: every method must beat it, and no audit may pass it."""

from typing import Any

from torch import nn

from benchmarks.quality.methods.given import Given, defaults


def unlearn(given: Given) -> nn.Module:
    """A copy of the original."""
    return given.original.copy().model.eval()


SETTINGS = defaults(unlearn)
SEARCH: list[dict[str, Any]] = [SETTINGS]
"""There is nothing to tune."""
