"""What the inputs of a dataset are like: facts that decide which models can be registered on it."""

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from worker import budgets
from worker.data import images
from worker.data.images import Mask
from worker.data.inputs import bad_inputs, lists


class InputFacts:
    """The facts gathered so far."""

    def __init__(self, pixels: budgets.Expansion | None = None) -> None:
        """No facts. The images may have so many pixels."""
        self._pixels = pixels
        self._type: str | None = None
        self._ranges: list[tuple[int, int]] = []
        self._images: dict[str, int] | None = None
        self._seen: dict[str, Mask] = {}

    def examine(self, column: pa.Array, length: int | None) -> dict[str, Mask]:
        """The inputs of a batch (N,) that cannot be used, as `inputs.bad_inputs` finds them."""
        if not pa.types.is_large_binary(column.type):
            return bad_inputs(column, length)
        undecodable, self._seen = images.examined(column, self._pixels)
        missing = column.is_null().to_numpy(zero_copy_only=False)
        return {"input_missing": missing, "input_undecodable": undecodable}

    def add(self, column: pa.Array, usable: Mask) -> None:
        """Count the batch that was just examined: the inputs where `usable` (N,) is true."""
        if pa.types.is_large_binary(column.type):
            self._images = self._images or {}
            for kind, mask in self._seen.items():
                self._images[kind] = self._images.get(kind, 0) + int((mask & usable).sum())
            return
        parts = lists(column.filter(pa.array(usable)))
        values = parts[0].type.value_type
        self._type = values.to_pandas_dtype().__name__
        if pa.types.is_integer(values):
            found = [pc.min_max(part.flatten()).as_py() for part in parts]
            now = [(each["min"], each["max"]) for each in found if each["min"] is not None]
            if now and self._ranges:
                now = [
                    (min(low, lowest), max(high, highest))
                    for (low, high), (lowest, highest) in zip(now, self._ranges, strict=True)
                ]
            self._ranges = now or self._ranges

    def report(self) -> dict[str, Any]:
        """Their part of the dataset's report."""
        if self._images is not None:
            return {"images": {kind: count for kind, count in self._images.items() if count}}
        if self._type is None:
            return {}
        inputs: dict[str, Any] = {"type": self._type}
        if self._ranges:
            lowest, highest = zip(*self._ranges, strict=True)
            inputs |= {"lowest": list(lowest), "highest": list(highest)}
        return {"inputs": inputs}
