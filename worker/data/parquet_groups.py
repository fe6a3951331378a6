"""Puts a Parquet file together from row groups of another one, as they are or without some rows."""

from collections.abc import Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq

from domain.errors import JobError
from worker.data import compact_thrift as thrift
from worker.data.compact_thrift import Reader, Sequence, Struct, Value
from worker.data.parquet_footer import (
    INT32,
    MAGIC,
    Column,
    Footer,
    chunks,
    span,
    stored_footer,
)
from worker.data.parquet_manner import Manner, bloom_filter, options

BLOCK = 2**20


class Groups:
    """A new file that is being written."""

    def __init__(self, footer: Footer, old: IO[bytes], out: IO[bytes]) -> None:
        self._footer, self._old, self._out = footer, old, out
        self._stored = footer.as_stored()
        self._groups: list[Struct] = []
        self._indexes: list[tuple[Struct, int, bytes]] = []
        """For each page index its column, its field there, and its bytes."""

        out.write(MAGIC)

    def copy(self, index: int) -> None:
        """Append a row group as it is."""
        group = self._footer.row_groups[index]
        placed = [self._place(chunk, self._old) for chunk in chunks(group)]
        self._append(group, placed, group[3].data)

    def filter(self, index: int, stays: pa.BooleanArray) -> None:
        """Append a row group without some of its rows; not at all if none is left."""
        if not stays.true_count:
            return
        group, placed = self._footer.row_groups[index], list[Struct]()
        with pq.ParquetFile(self._footer.file, metadata=self._stored, pre_buffer=False) as stored:
            for column in self._footer.columns:
                table = stored.read_row_group(index, [column.name]).filter(stays)
                before = chunks(group)[len(placed) :][: len(column.leaves)]
                manners = [
                    Manner.of(chunk, leaf, self._old)
                    for chunk, leaf in zip(before, column.leaves, strict=True)
                ]
                written = _written(table, column, manners)
                for was, now in zip(before, _written_chunks(written), strict=True):
                    placed.append(self._place(_as_before(now, was), written))
        self._append(group, placed, stays.true_count)

    def finish(self) -> None:
        """Write the page indexes and the footer."""
        for chunk, field, raw in self._indexes:
            chunk[field] = Value(thrift.I64, self._out.tell())
            chunk[field + 1] = Value(thrift.I32, len(raw))
            self._out.write(raw)
        rows = sum(group[3].data for group in self._groups)
        groups = Value(thrift.LIST, Sequence(thrift.STRUCT, self._groups))
        raw = thrift.written({**self._footer.fields, 3: Value(thrift.I64, rows), 4: groups})
        self._out.write(raw + len(raw).to_bytes(4, "little") + MAGIC)

    def _append(self, group: Struct, placed: list[Struct], rows: int) -> None:
        found = [chunk[3].data for chunk in placed]
        said = {
            **group,
            1: Value(thrift.LIST, Sequence(thrift.STRUCT, placed)),
            2: Value(thrift.I64, sum(metadata[6].data for metadata in found)),
            3: Value(thrift.I64, rows),
        }
        if 5 in group and found:
            said[5] = Value(thrift.I64, span(found[0])[0])
        if 6 in group:
            said[6] = Value(thrift.I64, sum(metadata[7].data for metadata in found))
        if 7 in group:
            said[7] = Value(thrift.I16, len(self._groups))
        self._groups.append(said)

    def _place(self, chunk: Struct, source: IO[bytes]) -> Struct:
        """Copy a column of a row group; what it says of itself, with its new places."""
        metadata = dict(chunk[3].data)
        begin, size = span(metadata)
        moved = self._out.tell() - begin
        _copy(source, begin, size, self._out)
        for field in (9, 10, 11):
            if field in metadata and metadata[field].data > 0:
                metadata[field] = Value(thrift.I64, metadata[field].data + moved)
        bloom = bloom_filter(source, metadata)
        if bloom is not None:
            metadata[14] = Value(thrift.I64, self._out.tell())
            metadata[15] = Value(thrift.I32, bloom[1])
            _copy(source, *bloom, self._out)
        placed = {**chunk, 3: Value(thrift.STRUCT, metadata)}
        if 2 in chunk and chunk[2].data > 0:
            placed[2] = Value(thrift.I64, chunk[2].data + moved)
        for field in (4, 6):  # offset index, column index
            placed.pop(field, None)
            length = placed.pop(field + 1, None)
            if field in chunk and length is not None and length.data:
                raw = b"".join(_blocks(source, chunk[field].data, length.data))
                self._indexes.append((placed, field, _moved(raw, moved) if field == 4 else raw))
        return placed


def verify(footer: Footer, masks: Mapping[int, pa.BooleanArray], new: Path) -> None:
    """Compare a new file with the old one: schema, metadata, and each row that stays, bit by bit.

    Raises:
        JobError: they differ.
    """
    after = Footer.of(new)
    kept = [
        index
        for index in range(len(footer.row_groups))
        if index not in masks or masks[index].true_count
    ]
    with (
        pq.ParquetFile(footer.file, metadata=footer.as_stored(bits=True), pre_buffer=False) as was,
        pq.ParquetFile(new, metadata=after.as_stored(bits=True), pre_buffer=False) as now,
    ):
        same = (
            {**after.fields, 3: None, 4: None} == {**footer.fields, 3: None, 4: None}
            and len(after.row_groups) == len(kept)
            and pq.read_schema(new).equals(pq.read_schema(footer.file), check_metadata=True)
            and all(
                _same_columns(footer, index, after, place)
                and (
                    _same_rows(footer, was, index, masks[index], now, place)
                    if index in masks
                    else _same_group(footer, index, after, place)
                )
                for place, index in enumerate(kept)
            )
        )
    if not same:
        raise JobError(
            f"The new {footer.file.name} is not as expected; nothing was replaced. Check the "
            "worker's disk and memory, then retry the job."
        )


def _same_columns(footer: Footer, index: int, after: Footer, place: int) -> bool:
    """Whether the columns of a row group have the same names and physical types."""
    return all(
        old[3].data[field] == new[3].data[field]
        for old, new in _pairs(footer, index, after, place)
        for field in (1, 3)
    )


def _same_group(footer: Footer, index: int, after: Footer, place: int) -> bool:
    """Whether a row group was copied byte by byte."""
    with footer.file.open("rb") as old, after.file.open("rb") as new:
        return all(
            _same_bytes(old, span(before[3].data), new, span(behind[3].data))
            for before, behind in _pairs(footer, index, after, place)
        )


def _same_rows(
    footer: Footer,
    old: pq.ParquetFile,
    index: int,
    stays: pa.BooleanArray,
    new: pq.ParquetFile,
    place: int,
) -> bool:
    """Whether the rows that stay have the same bits."""
    return all(
        old.read_row_group(index, [column.name])
        .filter(stays)
        .equals(new.read_row_group(place, [column.name]))
        for column in footer.columns
    )


def _pairs(
    footer: Footer, index: int, after: Footer, place: int
) -> Iterator[tuple[Struct, Struct]]:
    return zip(chunks(footer.row_groups[index]), chunks(after.row_groups[place]), strict=True)


def _written(table: pa.Table, column: Column, manners: list[Manner]) -> IO[bytes]:
    """A Parquet file in memory with this one column in one row group, written in this manner."""
    paths = []
    empty = BytesIO()
    pq.write_table(table.schema.empty_table(), empty, store_schema=False)
    schema = pq.read_metadata(empty).schema
    for number, leaf in enumerate(column.leaves):
        stored = schema.column(number)
        if (stored.max_definition_level, stored.max_repetition_level) != leaf.levels:
            raise ValueError(f"column {leaf.path!r} is nested in an unknown way")
        paths.append(stored.path)
    unsigned = any(leaf.unsigned and leaf.type == INT32 for leaf in column.leaves)
    how = options(dict(zip(paths, manners, strict=True)), unsigned=unsigned, rows=table.num_rows)
    file = pa.BufferOutputStream()
    with pq.ParquetWriter(file, table.schema, **how) as writer:
        writer.write_table(table, row_group_size=table.num_rows)
    written: IO[bytes] = pa.BufferReader(file.getvalue())
    return written


def _written_chunks(file: IO[bytes]) -> list[Struct]:
    raw, _ = stored_footer(file, "a column")
    [group] = Reader(raw).struct()[4].data.items
    return chunks(group)


def _as_before(now: Struct, was: Struct) -> Struct:
    """The column as it was written, under its name, in its type and with its metadata."""
    old = was[3].data
    identity = {field: old[field] for field in (1, 3, 8) if field in old}
    return {**now, 3: Value(thrift.STRUCT, {**now[3].data, **identity})}


def _moved(offset_index: bytes, by: int) -> bytes:
    """An offset index whose pages are somewhere else now."""
    said = Reader(offset_index).struct()
    pages = said[1].data
    moved = [{**page, 1: Value(thrift.I64, page[1].data + by)} for page in pages.items]
    return thrift.written({**said, 1: Value(thrift.LIST, Sequence(pages.kind, moved))})


def _same_bytes(old: IO[bytes], was: tuple[int, int], new: IO[bytes], now: tuple[int, int]) -> bool:
    if was[1] != now[1]:
        return False
    return all(
        before == behind
        for before, behind in zip(_blocks(old, *was), _blocks(new, *now), strict=True)
    )


def _copy(source: IO[bytes], begin: int, size: int, out: IO[bytes]) -> None:
    for block in _blocks(source, begin, size):
        out.write(block)


def _blocks(file: IO[bytes], begin: int, size: int) -> Iterator[bytes]:
    """So many bytes from here on, in pieces. Raises ValueError when the file ends before."""
    file.seek(begin)
    while size:
        block = file.read(min(size, BLOCK))
        if not block:
            raise ValueError("the file ends in a column")
        yield block
        size -= len(block)
