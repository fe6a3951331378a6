"""The samples kept for a version's jobs, as one Parquet file in the store.

A class-balanced draw from the retain set, plus hold-out and test samples: raw inputs as in the
dataset, columns `sample_id`, `input`, `label` and `split`; those in `unseen` where the dataset has
groups. With it, no job scans the dataset.

The hold-out has two halves. The method may look at the *calibration* half; the *audit* half only
judges the result, in this job and in all later ones.
"""

from collections.abc import Collection, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from domain.states import Split
from worker.data import decode, unseen
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
    return table.filter(pc.invert(_named(table, sample_ids)))


def only(table: pa.Table, sample_ids: Collection[str]) -> pa.Table:
    """The rows of these samples, from every split."""
    return table.filter(_named(table, sample_ids))


def _named(table: pa.Table, sample_ids: Collection[str]) -> pa.ChunkedArray:
    return pc.is_in(table["sample_id"], pa.array(list(sample_ids), pa.string()))


def of_split(table: pa.Table, split: Split) -> pa.Table:
    """The rows of one split."""
    return table.filter(pc.equal(table["split"], split.value))


def holdout_halves(table: pa.Table) -> tuple[pa.Table, pa.Table]:
    """The hold-out rows for calibration, and those for the audit.

    A sample's half follows from its id, and where the dataset has groups from the group, so no
    audit ever uses what an earlier job was calibrated with. A sample or group is moved only when
    one half would be empty. With groups, the audit's half is empty when fewer than two groups were
    never trained on.
    """
    holdout = of_split(table, Split.HOLDOUT)
    if unseen.GROUP in holdout.column_names:
        columns = (holdout[name].to_pylist() for name in (unseen.GROUP, unseen.LEAKING))
        for_audit = pa.array(unseen.sides(*columns), pa.bool_())
    else:
        for_audit = pa.array(_by_id(holdout["sample_id"].to_pylist()), pa.bool_())
    return holdout.filter(pc.invert(for_audit)), holdout.filter(for_audit)


def leaking(table: pa.Table) -> int:
    """How many hold-out rows are of groups that stand in training."""
    if unseen.LEAKING not in table.column_names:
        return 0
    return int(pc.sum(table[unseen.LEAKING]).as_py() or 0)


def _by_id(sample_ids: Sequence[str]) -> list[bool]:
    sides = [sha256(name.encode()).digest()[0] % 2 == 1 for name in sample_ids]
    if len(sides) > 1 and len(set(sides)) == 1:
        sides[0] = not sides[0]
    return sides


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
