"""The bad rows found while indexing a dataset: counts, and where a few of each kind are.

An example is a position and no more: ids are personal data, and the report is read, mailed and
kept.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from domain.states import Split

EXAMPLES = 10
LONGEST_ID = 512
"""In characters; Postgres cannot index more than about 2,700 bytes."""

Mask = npt.NDArray[np.bool_]


class BadRows:
    """The bad rows seen so far."""

    def __init__(self) -> None:
        self.rows = 0
        """Rows with at least one fault."""

        self._kinds: dict[str, dict[str, Any]] = {}

    def add(self, first: int, masks: dict[str, Mask]) -> Mask:
        """Count the bad rows of a batch.

        Args:
            first: position of the batch's first row.
            masks: (N,) for each kind, true where the row has that fault.

        Returns:
            (N,), true where the row has no fault.
        """
        for kind, mask in masks.items():
            if count := int(mask.sum()):
                found = self._kind(kind)
                found["count"] += count
                for index in np.flatnonzero(mask)[: EXAMPLES - len(found["examples"])].tolist():
                    found["examples"].append({"row": first + index})
        bad: Mask = np.logical_or.reduce(list(masks.values()))
        self.rows += int(bad.sum())
        return ~bad

    def add_found(self, kind: str, count: int, rows: int, examples: Sequence[int]) -> None:
        """Count faults found elsewhere, of which `rows` are in rows that have no other fault."""
        if count:
            found = self._kind(kind)
            found["count"] += count
            found["examples"] += [{"row": row} for row in examples]
            self.rows += rows

    def summary(self) -> str:
        """The kinds of fault and their counts, in words."""
        return ", ".join(
            f"{found['count']} {kind.replace('_', ' ')}" for kind, found in self._kinds.items()
        )

    def report(self, rows: int, counts: Sequence[tuple[str, int, int]]) -> dict[str, Any]:
        """The dataset's report, with the usable samples counted by split and label."""
        labels: dict[str, dict[str, int]] = {split.value: {} for split in Split}
        for split, label, count in counts:
            labels[split][str(label)] = count
        return {
            "rows": rows,
            "samples": {split: sum(by_label.values()) for split, by_label in labels.items()},
            "classes": len({label for _, label, _ in counts}),
            "labels": labels,
            "bad_rows": self._kinds,
        }

    def _kind(self, kind: str) -> dict[str, Any]:
        return self._kinds.setdefault(kind, {"count": 0, "examples": []})


def usable_ids(column: pa.Array) -> tuple[pa.Array, dict[str, Mask]]:
    """The ids (N,), null where Postgres cannot store them, and the masks (N,) that say why."""
    missing = column.is_null().to_numpy(zero_copy_only=False)
    invalid = not_utf8(column)
    column = pc.if_else(pa.array(invalid), pa.scalar(None, pa.string()), column)
    lengths = pc.fill_null(pc.utf8_length(column), 1).to_numpy()
    invalid |= pc.fill_null(pc.match_substring(column, "\0"), False).to_numpy(zero_copy_only=False)
    masks = {
        "sample_id_missing": missing | (lengths == 0),
        "sample_id_too_long": lengths > LONGEST_ID,
        "sample_id_invalid": invalid,
    }
    unusable = np.logical_or.reduce(list(masks.values()))
    return pc.if_else(pa.array(unusable), pa.scalar(None, pa.string()), column), masks


def not_utf8(column: pa.Array) -> Mask:
    """Which texts are not UTF-8: Postgres enforces it, Parquet does not."""
    bad = np.zeros(len(column), dtype=bool)
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        for index, value in enumerate(column.cast(pa.binary()).to_pylist()):
            try:
                (value or b"").decode()
            except UnicodeDecodeError:
                bad[index] = True
    return bad
