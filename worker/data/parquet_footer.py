"""A Parquet file's footer as it is stored, and the file seen without the meaning of its types.

Arrow gives columns a type by their meaning, and another writer's choice is lost: INT96 becomes
INT64, a decimal in INT32 a FIXED_LEN_BYTE_ARRAY, a timestamp of the year 9999 an overflow. Here a
footer is changed instead, so that Arrow sees numbers and bytes only: what it reads then, it writes
back bit by bit. The field numbers are those of `parquet.thrift`.
"""

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from domain.errors import JobError
from worker.data import compact_thrift as thrift
from worker.data.compact_thrift import Reader, Sequence, Struct, Value

MAGIC, SEALED = b"PAR1", b"PARE"
TAIL = 8
"""Bytes at the end of a Parquet file: the length of the footer, and the magic number."""

BOOLEAN, INT32, INT64, INT96, FLOAT, DOUBLE, BYTES, FIXED = range(8)
UNSIGNED = {INT32: 13, INT64: 14}
"""The converted type of an unsigned number, by the physical type that stores it."""

WRITER, SOUND = re.compile(rb"parquet-mr version (\d+)\.(\d+)\.(\d+)"), (1, 2, 9)
"""From when on the lengths in its footers include the headers of dictionaries (PARQUET-816)."""

REQUIRED, REPEATED = 0, 2
FLOAT16 = 15
ORDERED_AS_STORED = frozenset({1, 4, 6, 7, 8, 10, 11, 12, 13, 14, FLOAT16})
"""Logical types whose values are in the order of what stores them: text, numbers, times, UUIDs,
and where there is none."""

ORDERED_ONCE = frozenset({0, 4, 6, 7, 8, 9, 10, *range(11, 21)})
"""The same for converted types, which files of older writers have alone."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """A column as it is stored: one that holds values, not other columns."""

    path: str
    """For people, with dots."""

    type: int
    """The physical type."""

    unsigned: bool
    ordered: bool
    """Whether smallest and largest are the same for the stored values as for what they mean."""

    levels: tuple[int, int]
    """The highest definition level and the highest repetition level."""


@dataclass(frozen=True, slots=True)
class Column:
    """A top-level column."""

    name: str
    """In `Footer.as_stored`."""

    leaves: list[Leaf]


@dataclass(frozen=True)
class Footer:
    """The footer of one file. Nobody changes `fields`."""

    file: Path
    fields: Struct
    start: int
    """Where the footer begins, and the data ends."""

    @classmethod
    def of(cls, file: Path) -> "Footer":
        """Read a file's footer.

        Raises:
            JobError: it is no Parquet file, or one that Lethe does not rewrite.
        """
        with file.open("rb") as opened:
            raw, start = stored_footer(opened, file.name)
        try:
            footer = cls(file, Reader(raw).struct(), start)
            footer._require_rewritable()
            return footer
        except (ValueError, KeyError, IndexError, AttributeError, TypeError) as error:
            raise JobError(
                f"The footer of {file.name} is damaged; write the file again."
            ) from error

    @property
    def row_groups(self) -> list[Struct]:
        groups: list[Struct] = self.fields[4].data.items
        return groups

    @cached_property
    def leaves(self) -> list[Leaf]:
        """The columns, in the order in which row groups have them."""
        return list(self._leaves())

    def as_stored(self, *, bits: bool = False) -> pq.FileMetaData:
        """The file's metadata without the meaning of its types, for `pq.ParquetFile`.

        Columns are named `c1`, `c2` and so on, by their place in the schema. 96-bit numbers are
        bytes.

        Args:
            bits: whether floating-point numbers are whole ones too, so that two of them are equal
                if, and only if, their bits are.
        """
        schema = [_plain(element, number, bits=bits) for number, element in enumerate(self._schema)]
        names = [schema[number][4].data for number in self._leaf_numbers]
        types = [schema[number][1] for number in self._leaf_numbers]
        groups = [
            {
                1: _structs(
                    {
                        2: Value(thrift.I64, 0),
                        3: Value(
                            thrift.STRUCT,
                            {
                                **{
                                    field: value
                                    for field, value in chunk[3].data.items()
                                    if field in (2, 4, 5, 6, 7, 9, 10, 11)
                                },
                                1: kind,
                                3: Value(thrift.LIST, Sequence(thrift.BINARY, [name])),
                            },
                        ),
                    }
                    for chunk, kind, name in zip(chunks(group), types, names, strict=True)
                ),
                2: group[2],
                3: group[3],
            }
            for group in self.row_groups
        ]
        view = {1: self.fields[1], 2: _structs(schema), 3: self.fields[3], 4: _structs(groups)}
        if 6 in self.fields:  # readers mend the faults of writers that they know
            view[6] = self.fields[6]
        raw = thrift.written(view)
        whole = MAGIC + raw + struct.pack("<I", len(raw)) + MAGIC
        return pq.read_metadata(pa.BufferReader(whole))

    @cached_property
    def columns(self) -> list[Column]:
        """The top-level columns, in the order of the schema."""
        found: list[Column] = []
        number, leaves = 1, iter(self.leaves)
        while number < len(self._schema):
            after = self._after(number)
            own = [n for n in self._leaf_numbers if number <= n < after]
            found.append(Column(f"c{number}", [next(leaves) for _ in own]))
            number = after
        return found

    def of_group(self, index: int) -> "Footer":
        """As if the file had this row group only."""
        group = self.row_groups[index]
        fields = {**self.fields, 3: group[3], 4: _structs([group])}
        return Footer(self.file, fields, self.start)

    @property
    def _schema(self) -> list[Struct]:
        elements: list[Struct] = self.fields[2].data.items
        return elements

    @cached_property
    def _leaf_numbers(self) -> list[int]:
        return [n for n, element in enumerate(self._schema) if n and not _children(element)]

    def _after(self, number: int) -> int:
        """The element behind this one and all that it holds."""
        left = 1
        while left:
            left += _children(self._schema[number]) - 1
            number += 1
        return number

    def _leaves(self) -> Iterator[Leaf]:
        orders = self.fields[7].data.items if 7 in self.fields else None
        paths = self._paths()
        for place, number in enumerate(self._leaf_numbers):
            element = self._schema[number]
            meaning = _logical(element)
            converted = element[6].data if 6 in element else None
            physical = element[1].data
            decimal_in_bytes = physical in (BYTES, FIXED) and 5 in (meaning, converted)
            # A decimal in a number is in its order, in bytes it is not.
            as_stored = meaning in (None, 5, *ORDERED_AS_STORED) and (
                meaning is not None or converted in (None, 5, *ORDERED_ONCE)
            )
            unsigned = converted in range(11, 15) or (
                meaning == 10 and not element[10].data[10].data[2].data
            )
            by_type = orders is None or set(orders[place]) == {1}
            path, levels = paths[number]
            ordered = as_stored and by_type and not decimal_in_bytes and physical != INT96
            yield Leaf(path, physical, unsigned, ordered, levels)

    def _paths(self) -> dict[int, tuple[str, tuple[int, int]]]:
        """For each element its path, and its highest levels."""
        found: dict[int, tuple[str, tuple[int, int]]] = {}
        above: list[tuple[int, str, tuple[int, int]]] = []  # where each ends, its path and levels
        for number, element in enumerate(self._schema[1:], 1):
            while above and above[-1][0] <= number:
                above.pop()
            path, (definition, repetition) = above[-1][1:] if above else ("", (0, 0))
            kind = element[3].data if 3 in element else REQUIRED
            levels = (definition + (kind != REQUIRED), repetition + (kind == REPEATED))
            path += ("." if path else "") + element[4].data.decode(errors="replace")
            found[number] = path, levels
            if _children(element):
                above.append((self._after(number), path, levels))
        return found

    def _require_rewritable(self) -> None:
        """Raise JobError where rows cannot be taken out; ValueError where the footer is wrong."""
        name = self.file.name
        writer = WRITER.match(self.fields[6].data) if 6 in self.fields else None
        if writer and tuple(map(int, writer.groups())) < SOUND:
            raise JobError(
                f"{name} was written by parquet-mr before 1.2.9, which states lengths of columns "
                "wrongly; write it again with a current writer."
            )
        if self.fields.keys() & {8, 9}:
            raise JobError(f"{name} is encrypted; write it again without encryption.")
        for group in self.row_groups:
            if len(chunks(group)) != len(self._leaf_numbers):
                raise ValueError("a row group lacks a column")
            for chunk in chunks(group):
                if chunk.keys() & {8, 9}:
                    raise JobError(f"{name} has encrypted columns; write it again without.")
                if 1 in chunk and chunk[1].data:
                    raise JobError(
                        f"The columns of {name} are in other files; write it again as one file."
                    )
                begin, size = span(chunk[3].data)
                page = chunk[3].data[9].data
                if not len(MAGIC) <= begin <= page <= begin + size <= self.start:
                    raise ValueError("a column is outside the file")


def stored_footer(file: IO[bytes], name: str) -> tuple[bytes, int]:
    """The bytes of a footer, and where they begin. Raises JobError when there is none."""
    size = file.seek(0, 2)
    file.seek(max(size - TAIL, 0))
    tail = file.read(TAIL)
    if tail.endswith(SEALED):
        raise JobError(f"{name} is encrypted; write it again without encryption.")
    if len(tail) < TAIL or not tail.endswith(MAGIC):
        raise JobError(f"{name} is not a Parquet file; restore it from a backup.")
    (length,) = struct.unpack("<I", tail[:4])
    start = max(size - TAIL - length, 0)
    file.seek(start)
    return file.read(length), start


def chunks(group: Struct) -> list[Struct]:
    """The columns of a row group."""
    found: list[Struct] = group[1].data.items
    return found


def span(metadata: Struct) -> tuple[int, int]:
    """Where a column of a row group begins, and how many bytes it has."""
    begin: int = metadata[9].data
    if 11 in metadata and 0 < metadata[11].data < begin:
        begin = metadata[11].data
    return begin, metadata[7].data


def _structs(items: Any) -> Value:
    return Value(thrift.LIST, Sequence(thrift.STRUCT, list(items)))


def _children(element: Struct) -> int:
    return element[5].data if 5 in element else 0


def _logical(element: Struct) -> int | None:
    """Which logical type it has, by its number in the union."""
    return next(iter(element[10].data), None) if 10 in element else None


def _plain(element: Struct, number: int, *, bits: bool) -> Struct:
    """A schema element without its meaning. Unsigned and half numbers keep theirs: it is exact, and
    their order depends on it."""
    plain = {field: value for field, value in element.items() if field in (1, 2, 3, 5)}
    plain[4] = Value(thrift.BINARY, b"schema" if not number else b"c%d" % number)
    if 1 not in element:
        return plain
    physical, logical = element[1].data, _logical(element)
    converted = element[6].data if 6 in element else None
    if physical == INT96:
        plain[1], plain[2] = Value(thrift.I32, FIXED), Value(thrift.I32, 12)
    elif bits:
        if physical in (FLOAT, DOUBLE):
            plain[1] = Value(thrift.I32, INT32 if physical == FLOAT else INT64)
    elif converted in range(11, 15) or (logical == 10 and not element[10].data[10].data[2].data):
        plain[6] = Value(thrift.I32, UNSIGNED[physical])
    elif logical == FLOAT16:
        plain[10] = element[10]
    return plain
