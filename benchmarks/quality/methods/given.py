"""What every baseline is given. Baselines are for the benchmark; the service knows none of them.

A baseline is a module with `unlearn(given, **settings) -> nn.Module`, its default `SETTINGS`, and
the settings to `SEARCH` when it is tuned: eight for each that has any, the first its paper's.
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
    """One problem, as a baseline sees it."""

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
    """A class shall be lost, rather than samples untrained."""

    seed: int


def defaults(unlearn: Callable[..., nn.Module]) -> dict[str, Any]:
    """The settings of a method and their defaults, as its signature names them."""
    parameters = inspect.signature(unlearn).parameters.values()
    return {each.name: each.default for each in parameters if each.default is not each.empty}
