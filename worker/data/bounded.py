"""Reads Parquet files that somebody else wrote, in memory that does not depend on what they say.

A footer need not be true, a page can be a thousand times larger than on the disk, and a dictionary
holds a value once that a million rows have.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from domain.errors import JobError
from worker import budgets

BUFFER_BYTES = 2**16
"""Bytes read ahead of the page being decoded, per column."""

FEWER = 16
"""How many times fewer rows are read at a time when they took too much memory."""

# Arrow's own takes a gigabyte from the system ahead, and no limit sees how it is used.
pa.set_memory_pool(pa.system_memory_pool())

FEWER_PIECES = "Write it again with fewer and larger row groups, and the columns that are needed."

Convert = Callable[[pa.RecordBatch], pa.RecordBatch]


@dataclass(frozen=True, slots=True)
class Piece:
    """The first rows of a row group, and some of their columns."""

    file: Path
    group: int
    rows: int
    columns: Sequence[str]


def open_file(file: Path) -> pq.ParquetFile:
    """The file with its footer read, which can be larger in memory than it is on the disk.

    Raises:
        JobError: the footer is too large, or names too many columns.
    """
    if _footer_bytes(file) > budgets.FOOTER_BYTES:
        raise JobError(f"The footer of {file.name} is too large. {FEWER_PIECES}")
    try:
        with budgets.within(budgets.READ_BYTES):
            # A row group may be the whole file, so it is not read before it is decoded.
            parquet = pq.ParquetFile(
                file,
                pre_buffer=False,
                buffer_size=BUFFER_BYTES,
                page_checksum_verification=True,
                thrift_string_size_limit=budgets.FOOTER_BYTES,
                thrift_container_size_limit=budgets.FOOTER_ITEMS,
            )
            if parquet.metadata.num_columns > budgets.COLUMNS:
                raise JobError(f"{file.name} has too many columns. {FEWER_PIECES}")
            _ = parquet.schema_arrow
    except MemoryError as error:
        raise JobError(f"The footer of {file.name} is too large. {FEWER_PIECES}") from error
    return parquet


def _footer_bytes(file: Path) -> int:
    """As the end of the file says; 0 when it is not that of a Parquet file."""
    with file.open("rb") as tail:
        tail.seek(max(tail.seek(0, os.SEEK_END) - 8, 0))
        end = tail.read(8)
    return int.from_bytes(end[:4], "little") if end.endswith(b"PAR1") else 0


def rows_that_fit(parquet: pq.ParquetFile, piece: Piece, batch_bytes: int, *, at_most: int) -> int:
    """How many rows of the piece stay near so many bytes, if the footer is right."""
    group = parquet.metadata.row_group(piece.group)
    if group.total_byte_size <= batch_bytes:
        return at_most
    names = [f"{name}." for name in piece.columns]
    with budgets.within(budgets.READ_BYTES), suppress(MemoryError):
        # What the footer says of a chunk ends the process, if it is absurd and asked for from
        # Python. Reading a row finds out, and is an error.
        next(parquet.iter_batches(1, [piece.group], piece.columns, use_threads=False), None)
    size = sum(
        group.column(index).total_uncompressed_size
        for index in range(group.num_columns)
        if any(f"{parquet.schema.column(index).path}.".startswith(name) for name in names)
    )
    return int(min(max(batch_bytes * group.num_rows // max(size, 1), 1), at_most))


def read(
    parquet: pq.ParquetFile, piece: Piece, size: int, batch_bytes: int, convert: Convert
) -> Iterator[pa.RecordBatch]:
    """The rows of the piece, converted, in batches.

    How much rows take is known when they are decoded. A read that takes too much is begun again
    with fewer rows at a time.

    Args:
        size: how many rows to read at a time, if they fit.
        batch_bytes: roughly how large a batch may be, converted.

    Raises:
        JobError: one row alone takes too much, or there are fewer rows than the footer says.
    """
    done = 0
    while True:
        batches = parquet.iter_batches(size, [piece.group], piece.columns, use_threads=False)
        try:
            for batch in _from(done, batches, piece.rows, convert):
                done += batch.num_rows
                fits = max(batch.num_rows * batch_bytes // max(batch.nbytes, 1), 1)
                for first in range(0, batch.num_rows, fits):
                    yield batch.slice(first, fits)
        except MemoryError:
            if size == 1:
                raise JobError(_too_large(piece)) from None
            size = max(size // FEWER, 1)
        else:
            break
    if done < piece.rows:
        raise JobError(
            f"{piece.file.name} has fewer rows than its footer says; it is damaged. Write it again."
        )


def _from(
    start: int, batches: Iterator[pa.RecordBatch], rows: int, convert: Convert
) -> Iterator[pa.RecordBatch]:
    """Of these batches the rows from `start` on, until there are so many, converted.

    Raises MemoryError when a batch takes more than it may, and not when the caller does.
    """
    seen = 0
    while seen < rows:
        with budgets.within(budgets.READ_BYTES):
            batch = next(batches, None)
            if batch is None:
                return
            skipped = max(start - seen, 0)
            seen += batch.num_rows
            if skipped >= batch.num_rows:
                continue
            converted = convert(batch.slice(skipped))
        yield converted


def _too_large(piece: Piece) -> str:
    return (
        f"A single row of {piece.file.name} (row group {piece.group}), or a page or a dictionary "
        f"that it needs, takes more than {budgets.READ_BYTES // 2**20} MB of memory. Write the "
        "file again with smaller values and pages."
    )
