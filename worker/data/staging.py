"""The rows of a dataset on their way into Postgres: checked, written to a file, then loaded.

The file is written with no transaction open; one transaction loads it and finds duplicates.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from time import monotonic
from typing import IO, Any, cast

import numpy as np
import psycopg
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
from psycopg import sql
from sqlalchemy import Table, delete, event, select, text
from sqlalchemy.orm import Session

from domain.tables import staged_samples
from worker import budgets
from worker.data.bad_rows import BadRows, usable_ids
from worker.data.class_names import UNKNOWN
from worker.data.content import ContentDigests
from worker.data.group_column import GroupDigests
from worker.data.images import Mask
from worker.data.input_facts import InputFacts
from worker.data.inputs import array_length
from worker.data.parquet import ROLES, Source
from worker.engine.workbench import Workbench

USABLE_IDS = select(staged_samples.c.sample_id).where(staged_samples.c.usable)

HIGHEST_LABEL = 2**31 - 1
REPORT_EVERY_S = 2.0
BLOCK = 2**20

STAGED = pa.schema({
    "sample_id": pa.string(), "position": pa.int64(), "label": pa.int64(), "split": pa.string(),
    "usable": pa.bool_(), "group_digest": pa.string(), "content": pa.string(),
})  # fmt: skip
"""The columns of the staged file. It holds every row whose id can be stored, unusable ones
included: an id they share with a usable row makes that row ambiguous."""


def stage(
    bench: Workbench,
    source: Source,
    definition: dict[str, Any],
    faults: BadRows,
    staged: IO[bytes],
    groups: GroupDigests | None,
    content: ContentDigests,
) -> InputFacts:
    """Check every row, and write those with a usable id to the staged file as CSV.

    Args:
        groups: makes the digests of the groups; None if the dataset has none.
        content: makes those of what a sample consists of.
    """
    length: int | None = None
    facts = InputFacts(budgets.pixels_of(source.stored))
    reported = monotonic()
    options = pa.csv.WriteOptions(include_header=False)
    with pa.csv.CSVWriter(kept_open(staged), STAGED, write_options=options) as writer:
        for first, batch in source.batches(ROLES if groups is None else (*ROLES, "group")):
            if length is None:
                length = array_length(batch["input"], source.input_shape)
            splits = _splits(batch["split"], definition["splits"])
            ids, bad_ids = usable_ids(batch["sample_id"])
            bad_rows = {
                **_bad_labels(batch["label"], source.classes.names),
                "split_unknown": _mask(splits.is_null()),
                **facts.examine(batch["input"], length),
            }
            of_groups = pa.nulls(batch.num_rows, pa.string())
            if groups is not None:
                of_groups, bad_groups = groups.of(batch["group"])
                bad_rows |= bad_groups
            usable = faults.add(first, bad_ids | bad_rows)
            facts.add(batch["input"], usable)
            position = pa.array(np.arange(first, first + batch.num_rows))
            consists = content.of(batch["input"], batch["label"], splits)
            columns = [ids, position, batch["label"], splits, pa.array(usable), of_groups, consists]
            writer.write_batch(
                pa.RecordBatch.from_arrays(columns, schema=STAGED).filter(ids.is_valid())
            )
            if monotonic() - reported > REPORT_EVERY_S:
                reported = monotonic()
                bench.report("checking the rows", 0.9 * first / source.rows)
    return facts


def kept_open(file: IO[bytes]) -> pa.PythonFile:
    """Arrow's handle on the file; closing it leaves ours open."""
    return pa.PythonFile(open(file.fileno(), "wb", closefd=False), mode="w")


def _bad_labels(column: pa.Array, names: Sequence[str] | None) -> dict[str, Mask]:
    labels = pc.fill_null(column, 0).to_numpy()
    unknown = np.zeros(len(labels), dtype=bool)
    if names is not None:
        unknown = (labels == UNKNOWN) | (labels >= len(names))
    return {
        "label_missing": _mask(column.is_null()),
        "label_unknown": unknown,
        "label_out_of_range": ((labels < 0) | (labels > HIGHEST_LABEL)) & ~unknown,
    }


def _splits(column: pa.Array, names: dict[str, str | None]) -> pa.Array:
    """The split of each row, null where its value names none."""
    values = [str(name) for name in names.values() if name is not None]
    meanings = pa.array([split for split, name in names.items() if name is not None], pa.string())
    return meanings.take(pc.index_in(column, pa.array(values, pa.string())))


def _mask(column: pa.Array) -> Mask:
    return cast("Mask", column.to_numpy(zero_copy_only=False))


def load(session: Session, staged: IO[bytes], table: Table) -> None:
    """Load a staged CSV file, whose columns are the table's, until the end of the transaction.

    Another transaction sees none of it, so all of them can use one table: what one has loaded is
    gone before it commits.
    """
    session.execute(delete(table))
    event.listen(session, "before_commit", lambda ending: ending.execute(delete(table)), once=True)
    driver = cast("psycopg.Connection[Any]", session.connection().connection.driver_connection)
    into = sql.SQL("COPY {} FROM STDIN (FORMAT csv)").format(sql.Identifier(table.name))
    staged.seek(0)
    with driver.cursor() as cursor, cursor.copy(into) as copy:
        while block := staged.read(BLOCK):
            copy.write(block)


@contextmanager
def in_one_process(session: Session) -> Iterator[None]:
    """How staged rows are grouped. Postgres knows nothing yet of what this transaction has loaded:
    it would have several processes group them all, and then sort nearly as many to compare."""
    session.execute(text("SET LOCAL max_parallel_workers_per_gather = 0"))
    yield
    session.execute(text("SET LOCAL max_parallel_workers_per_gather TO DEFAULT"))


def find_duplicates(session: Session, faults: BadRows) -> None:
    """Leave out all rows of an id that occurs more than once: nothing says which one is right."""
    duplicates = "FROM staged_samples GROUP BY sample_id HAVING count(*) > 1"
    each = f"SELECT count(*) AS rows, count(*) FILTER (WHERE usable) AS newly {duplicates}"
    with in_one_process(session):
        count, newly_bad = session.execute(
            text(f"SELECT coalesce(sum(rows), 0), coalesce(sum(newly), 0) FROM ({each}) AS each")  # noqa: S608
        ).one()
    if not count:
        return
    duplicates = f"SELECT sample_id {duplicates}"
    examples = session.scalars(
        text(
            f"SELECT position FROM staged_samples WHERE sample_id IN ({duplicates}) "  # noqa: S608
            "ORDER BY position LIMIT 10"
        )
    ).all()
    faults.add_found("sample_id_duplicate", int(count), int(newly_bad), examples)
    session.execute(
        text(f"UPDATE staged_samples SET usable = false WHERE sample_id IN ({duplicates})")  # noqa: S608
    )
