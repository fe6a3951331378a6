"""Near-duplicates among a model's samples: looked for when it is registered, reported, and kept
where its policy takes them for groups.

Shapes: N samples, d dimensions of what enters a layer.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from uuid import UUID

import pyarrow as pa
import torch
from sqlalchemy import delete, insert
from sqlalchemy.orm import Session
from torch import Tensor

from domain import forgetting, tombstones
from domain.states import Split
from domain.tables import NearDuplicate
from worker import budgets
from worker.unlearning.near_duplicates import LAYERS, Found, Likeness
from worker.unlearning.network import Network
from worker.unlearning.samples import Samples
from worker.unlearning.shared_stretches import Stretches, united

EXAMPLES, SHOWN = 5, 4
"""Groups that are given as examples, and the most rows of each."""

ROWS = 10_000
"""Rows stored at a time."""

TOO_MANY = (
    "The dataset has too many samples to compare in the network's layers. Declare which belong "
    "together in its `group` column."
)
OTHER_LAYERS = (
    "The network's layers are not reached in the same way for all samples, so that samples cannot "
    "be compared in them."
)


def layers_of(network: Network) -> list[str]:
    """The layers that samples are compared in, from the first to the last."""
    every = network.layers
    places = torch.linspace(0, len(every) - 1, min(LAYERS, len(every))).round().long()
    return [every[place] for place in places.tolist()]


class Comparison:
    """What is collected of training and hold-out samples, in the order of their positions."""

    def __init__(self, *, tokens: bool = False) -> None:
        self.left_out: str | None = None
        """Why samples are not compared in layers; None if they are."""

        self._likeness = Likeness()
        self._bytes = 0
        self._stretches: Stretches | None = Stretches(tokens=tokens)
        self._stretches_bytes = 0
        self._ids: list[pa.Array] = []
        self._positions: list[Tensor] = []
        self._holdout: list[Tensor] = []

    def add(
        self,
        layers: Mapping[str, Tensor],
        samples: Samples,
        ids: pa.Array,
        positions: Tensor,
        split: Split,
    ) -> None:
        """Add samples of one split: what enters each layer (N, d), what is stored, ids and
        positions (N,)."""
        if self.left_out is None:
            self._add_layers(layers, samples.labels)
        if self._stretches is not None:
            self._stretches_bytes += self._stretches.add(samples.inputs)
            if self._stretches_bytes > budgets.STRETCHES_BYTES:
                self._stretches = None
        if self.left_out is not None and self._stretches is None:
            self._ids, self._positions, self._holdout = [], [], []
            return
        self._ids.append(ids)
        self._positions.append(positions)
        self._holdout.append(torch.full((len(positions),), split is Split.HOLDOUT))

    def _add_layers(self, layers: Mapping[str, Tensor], labels: Tensor) -> None:
        try:
            self._bytes += self._likeness.add(layers, labels)
        except ValueError:
            self.left_out = OTHER_LAYERS
        if self._bytes > budgets.LIKENESS_BYTES:
            self.left_out = TOO_MANY
        if self.left_out is not None:
            self._likeness = Likeness()

    def result(self, device: torch.device) -> "Compared":
        """Find the near-duplicates among all samples added."""
        empty = torch.empty(0, dtype=torch.int64)
        positions = torch.cat([empty, *self._positions])
        found = self._likeness.found(device)
        if self.left_out is not None:
            found = replace(found, numbers=torch.full((len(positions),), -1))
        shared = None if self._stretches is None else self._stretches.found()
        return Compared(
            found,
            shared,
            pa.chunked_array(self._ids, pa.string()),
            positions,
            torch.cat([empty.bool(), *self._holdout]),
            self.left_out,
        )


class Compared:
    """What was found."""

    def __init__(
        self,
        found: Found,
        shared: Tensor | None,
        ids: pa.ChunkedArray,
        positions: Tensor,
        holdout: Tensor,
        left_out: str | None,
    ) -> None:
        self._found, self._ids, self._left_out = found, ids, left_out
        self._shared = shared
        self._numbers = found.numbers if shared is None else united(found.numbers, shared)
        self._positions, self._holdout = positions, holdout

    def report(self) -> dict[str, Any]:
        """Counts, and rows of a few groups as examples, as `models.near_duplicates` has them."""
        numbers = self._numbers
        alike = numbers >= 0
        sizes = numbers[alike].bincount()
        training, holdout = (
            numbers[alike & side].unique()  # type: ignore[no-untyped-call]
            for side in (~self._holdout, self._holdout)
        )
        largest = sizes.argsort(descending=True, stable=True)[:EXAMPLES]
        return {
            "left_out": self._left_out,
            "training_samples": int((~self._holdout).sum()),
            "samples": int((alike & ~self._holdout).sum()),
            "groups": len(training),
            "largest": int(sizes.max()) if len(sizes) else 0,
            "groups_in_holdout": int(torch.isin(training, holdout).sum()),
            "holdout_samples": int((alike & self._holdout).sum()),
            "sharing_stretches": self._sharing(),
            "not_searched": self._found.not_searched,
            "not_counted": self._found.not_counted,
            "examples": [self._positions[numbers == number][:SHOWN].tolist() for number in largest],
        }

    def _sharing(self) -> int | None:
        if self._shared is None:
            return None
        return int(((self._shared >= 0) & ~self._holdout).sum())

    def store(self, session: Session, model_id: UUID) -> None:
        """Keep which samples are nearly the same. Replaces what was there; samples that the model
        has forgotten meanwhile get no rows."""
        session.execute(delete(NearDuplicate).where(NearDuplicate.model_id == model_id))
        alike = (self._numbers >= 0).numpy()
        numbers = self._numbers.numpy()[alike]
        ids = self._ids.filter(pa.array(alike))
        for first in range(0, len(ids), ROWS):
            some = slice(first, first + ROWS)
            rows = [
                {"model_id": model_id, "sample_id": name, "group_number": number}
                for name, number in zip(ids[some].to_pylist(), numbers[some].tolist(), strict=True)
            ]
            session.execute(insert(NearDuplicate), rows)
        forgetting.lock_reference_rows(session, model_id)
        gone = tombstones.has(model_id, NearDuplicate.sample_id)
        session.execute(delete(NearDuplicate).where(NearDuplicate.model_id == model_id, gone))
