"""What every baseline is given. Baselines exist for the benchmark only; the service has none.

A baseline is a module with `unlearn(given, **settings) -> nn.Module`, its default `SETTINGS`, and
the settings to `SEARCH` when it is tuned: eight for each that has any, with its paper's first.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from worker.unlearning.network import Network
from worker.unlearning.samples import Samples


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """A problem, as a baseline sees it."""

    original: Network
    """The trained network; baselines leave it as it is."""

    forget: Samples
    retain: Samples
    """The whole retain set, not only a reservoir."""

    holdout: Samples
    """The calibration half of the hold-out."""

    fresh: Callable[[int], nn.Module]
    """A newly initialised model of the same architecture, by seed."""

    removing: bool
    """Whether to remove a class rather than untrain samples."""

    seed: int


def defaults(unlearn: Callable[..., nn.Module]) -> dict[str, Any]:
    """The settings of a method and their defaults, as its signature names them."""
    parameters = inspect.signature(unlearn).parameters.values()
    return {each.name: each.default for each in parameters if each.default is not each.empty}
