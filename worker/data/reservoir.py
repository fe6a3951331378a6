"""The samples kept for a version's jobs, as one Parquet file in the store.

A class-balanced draw from the retain set, plus hold-out and test samples: raw inputs as in the
dataset, columns `sample_id`, `input`, `label` and `split`. With it, no job scans the dataset.

The hold-out has two halves. The method may look at the *calibration* half; the *audit* half only
judges the result, in this job and in all later ones.
"""

from collections.abc import Collection
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from domain.states import Split
from worker.data import decode
from worker.store.artifacts import Store
from worker.unlearning.samples import Samples


def write(store: Store, table: pa.Table) -> str:
    """Store the table and return its digest."""

    def save(path: Path) -> None:
        pq.write_table(table, path, compression="zstd")

    return store.put(save)


def read(store: Store, digest: str) -> pa.Table:
    """The table. Raises JobError when the file is missing or damaged."""
    return pq.read_table(store.path(digest))


def without(table: pa.Table, sample_ids: Collection[str]) -> pa.Table:
    """The rows of all other samples, from every split."""
    named = pc.is_in(table["sample_id"], pa.array(list(sample_ids), pa.string()))
    return table.filter(pc.invert(named))


def of_split(table: pa.Table, split: Split) -> pa.Table:
    """The rows of one split."""
    return table.filter(pc.equal(table["split"], split.value))


def holdout_halves(table: pa.Table) -> tuple[pa.Table, pa.Table]:
    """The hold-out rows for calibration, and those for the audit.

    A sample's half follows from its id, so no audit ever uses what an earlier job was calibrated
    with. A sample is moved only when one half would be empty.
    """
    holdout = of_split(table, Split.HOLDOUT)
    sides = [sha256(name.encode()).digest()[0] % 2 for name in holdout["sample_id"].to_pylist()]
    if len(sides) > 1 and len(set(sides)) == 1:
        sides[0] = 1 - sides[0]
    for_audit = pa.array([side == 1 for side in sides], pa.bool_())
    return holdout.filter(pc.invert(for_audit)), holdout.filter(for_audit)


def samples(
    table: pa.Table, split: Split, preprocessing: dict[str, Any], definition: dict[str, Any]
) -> Samples:
    """The samples of one split, decoded.

    Args:
        definition: the dataset's, for the shape of its inputs.
    """
    return decoded(of_split(table, split), preprocessing, definition)


def decoded(rows: pa.Table, preprocessing: dict[str, Any], definition: dict[str, Any]) -> Samples:
    """The samples of these rows, decoded as by `samples`."""
    return decode.labelled(rows, preprocessing, definition.get("input_shape"))
