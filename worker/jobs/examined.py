"""What registration is given of weights, and what it finds of them. Shapes: C classes."""

from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from torch import Tensor

from worker.data.likeness import Compared
from worker.data.parquet import Source
from worker.jobs.timing import Timed
from worker.networks import beside
from worker.unlearning.network import Network


@dataclass(frozen=True, slots=True)
class Offered:
    """The weights of a model, and what was said of them."""

    weights_uri: str
    expected_accuracy: dict[str, Any] | None
    accept_accuracy: bool
    left_out: frozenset[str] = frozenset()
    """Indexed samples that nothing is to be kept or learned of, besides those with a tombstone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Examined:
    """What is known of a network once it has seen the dataset; its files are in the store."""

    architecture: dict[str, Any]
    found: beside.Found
    network: Network
    source: Source
    kept: pa.Table
    """The reservoir."""

    class_counts: Tensor
    """(C,) training samples of each class."""

    digests: dict[str, str]
    figures: dict[str, Any]
    compared: Compared
    timed: Timed | None
    """What training takes, where it was tried."""
