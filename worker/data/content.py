"""What a sample consists of, as a keyed digest: so that a dataset's next state can tell which
samples changed without keeping a copy of any.

Shapes: N rows of a batch.
"""

from collections.abc import Iterator
from hashlib import blake2b, sha256
from itertools import pairwise

import numpy as np
import pyarrow as pa

from worker.data.inputs import lists

SIZE = 16
"""Bytes of a digest."""


class ContentDigests:
    """Makes the digests of one dataset's samples.

    They are of the values as they are read: other codecs, encodings or row groups change nothing,
    another type of the values does.
    """

    def __init__(self, key: bytes) -> None:
        """Args: key: the dataset's `tombstone_key`, from which another one is made."""
        self._key = sha256(b"content of samples" + key).digest()

    def of(self, inputs: pa.Array, labels: pa.Array, splits: pa.Array) -> pa.Array:
        """The digests of input, label and split of each row (N,), as text that Postgres reads as
        bytes."""
        parts = [_bytes(part) for part in lists(inputs)]
        told = (f"{label} {split} ".encode() for label, split in zip(
            labels.to_pylist(), splits.to_pylist(), strict=True
        ))  # fmt: skip
        return pa.array([self._digest(*row) for row in zip(told, *parts, strict=True)], pa.string())

    def _digest(self, told: bytes, *parts: memoryview) -> str:
        made = blake2b(told, digest_size=SIZE, key=self._key)
        for part in parts:
            made.update(part.nbytes.to_bytes(8))
            made.update(part)
        return f"\\x{made.hexdigest()}"


def _bytes(column: pa.Array) -> Iterator[memoryview]:
    """The bytes of each row's values."""
    if pa.types.is_large_binary(column.type):
        _, offsets, data = column.buffers()
        places = np.frombuffer(offsets, np.int64)[column.offset : column.offset + len(column) + 1]
        whole, size = memoryview(data or b""), 1
    else:
        places = column.offsets.to_numpy()
        values = np.ascontiguousarray(column.values.to_numpy(zero_copy_only=False))
        whole, size = memoryview(values.view(np.uint8).data), values.itemsize
    return (whole[size * start : size * end] for start, end in pairwise(places.tolist()))
