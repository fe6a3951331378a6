"""The sample ids of a Parquet file, in the order of its rows."""

from collections.abc import Iterator

from domain.suppression import ASKED_AT_ONCE
from worker.data.bad_rows import usable_ids
from worker.data.parquet import Source


def sample_ids(source: Source) -> Iterator[tuple[int, list[str | None]]]:
    """The ids of all rows in batches, each with the position of its first row; None where a row's
    id cannot be a sample id."""
    for first, batch in source.batches(("sample_id",), rows=ASKED_AT_ONCE):
        ids, _ = usable_ids(batch["sample_id"])
        yield first, ids.to_pylist()
