"""The samples kept for a version's jobs, as one Parquet file in the store.

A class-balanced draw of the retain set, hold-out and test samples: raw inputs as in the dataset,
columns `sample_id`, `input`, `label` and `split`. So a job never scans the dataset.
"""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from service.states import Split
from worker import inputs
from worker.artifacts import Store
from worker.unlearning.samples import Samples


def write(store: Store, table: pa.Table) -> str:
    """Keep the table; its digest."""

    def save(path: Path) -> None:
        pq.write_table(table, path, compression="zstd")

    return store.put(save)


def read(store: Store, digest: str) -> pa.Table:
    """The table. Raises JobError when the file is missing or damaged."""
    return pq.read_table(store.path(digest))


def without(table: pa.Table, sample_ids: Collection[str]) -> pa.Table:
    """The rows of all other samples, of whatever split."""
    named = pc.is_in(table["sample_id"], pa.array(list(sample_ids), pa.string()))
    return table.filter(pc.invert(named))


def samples(
    table: pa.Table, split: Split, preprocessing: dict[str, Any], definition: dict[str, Any]
) -> Samples:
    """The samples of one split, decoded.

    Args:
        definition: of the dataset, for the shape of its inputs.
    """
    chosen = table.filter(pc.equal(table["split"], split.value))
    return inputs.labelled(chosen, preprocessing, definition.get("input_shape"))
