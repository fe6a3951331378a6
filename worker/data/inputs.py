"""Which inputs of a dataset can be used. Needs no torch: datasets are indexed without it."""

import math
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from worker.data import images
from worker.data.images import Mask


def bad_inputs(column: pa.Array, length: int | None) -> dict[str, Mask]:
    """The inputs that cannot be used, by kind of fault.

    Args:
        column: N inputs, as `parquet.Source` gives them.
        length: how many values an array must have; None for images.

    Returns:
        Masks (N,), true where the input is bad.
    """
    missing = column.is_null().to_numpy(zero_copy_only=False)
    if pa.types.is_large_binary(column.type):
        return {"input_missing": missing, "input_undecodable": images.examined(column)[0]}
    wrong_length, odd = np.zeros(len(column), dtype=bool), np.zeros(len(column), dtype=bool)
    for part in lists(column):
        lengths = pc.fill_null(pc.list_value_length(part), 0).to_numpy()
        wrong_length |= lengths != length
        values = part.flatten()  # without what stands in the place of a null of fixed size
        if values.null_count or pa.types.is_floating(values.type):
            unsound = values.is_null().to_numpy(zero_copy_only=False)
            if pa.types.is_floating(values.type):
                unsound |= ~np.isfinite(values.to_numpy(zero_copy_only=False))
            odd[np.repeat(np.arange(len(part)), lengths)[unsound]] = True
    return {
        "input_missing": missing,
        "input_wrong_length": ~missing & wrong_length,
        "input_not_finite": odd,
    }


def array_length(column: pa.Array, input_shape: Sequence[int] | None) -> int | None:
    """How many values each array must have: from the shape, or else from the first array.

    None for images, and while neither is known.
    """
    if pa.types.is_large_binary(column.type):
        return None
    if input_shape is not None:
        return math.prod(input_shape)
    lengths = pc.list_value_length(lists(column)[0]).drop_null()
    return lengths[0].as_py() if len(lengths) else None


def lists(column: pa.Array) -> list[pa.Array]:
    """The lists (N,) that array inputs consist of: one, or one for each argument of the network."""
    return column.flatten() if pa.types.is_struct(column.type) else [column]
