"""The samples of a dataset in its Parquet files, read in pieces that fit into memory.

Columns are named by their role (`sample_id`, `input`, `label`, `split`), whatever the files call
them, and have one type per role, however the files store it. A position is a row number over all
files in the order of their paths.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from domain.errors import JobError, LocationRefused
from domain.locations import require_file
from domain.preprocessing import kind_of
from worker import budgets
from worker.data import bounded, files, input_columns, partitions
from worker.data.class_names import ClassNames, is_text
from worker.data.files import Listing

ROLES = ("sample_id", "input", "label", "split")
BATCH_BYTES = 32 * 2**20
"""Roughly how much is in memory at a time, uncompressed, if no row is larger than this."""

TAKEN_ROWS = 128
"""Rows read at a time when single rows are wanted: what comes after the last one is not decoded."""

CHANGED = (
    "The dataset changed since it was indexed; restore its files, or register what they are now "
    "with `POST /v1/datasets/{name}/states`."
)


@dataclass(frozen=True, slots=True)
class _RowGroup:
    file: Path
    index: int
    first: int
    rows: int
    """How many rows are read, starting at the first."""

    def until(self, ordered: npt.NDArray[np.int64]) -> "_RowGroup":
        """The row group up to the last of these positions in it; no rows if it has none of them."""
        below = ordered[: np.searchsorted(ordered, self.first + self.rows)]
        return replace(self, rows=max(int(below[-1]) + 1 - self.first, 0) if len(below) else 0)


class Source:
    """The files of one dataset."""

    def __init__(self, definition: dict[str, Any]) -> None:
        self.definition = definition
        self.kind = kind_of(definition)
        self.input_shape: list[int] | None = definition.get("input_shape")
        self.rows = 0
        self.stored = 0
        """Bytes of all files."""

        self._names = {
            role: [name] for role, name in definition["columns"].items() if role != "input"
        }
        self.arguments: list[str] | None = None
        """The network's arguments that input columns are for, if there are several."""

        if "input" in definition["columns"]:
            self._names["input"], self.arguments = input_columns.named(definition["columns"])
        self._groups: list[_RowGroup] = []
        self._types: dict[str, pa.DataType] = {}
        self._given: dict[Path, dict[str, pa.Scalar]] = {}
        self.classes = ClassNames(definition.get("classes"))
        """What the labels are called, as far as it is known."""

    @classmethod
    def open(
        cls, path: Path, definition: dict[str, Any], listing: Listing | None = None
    ) -> "Source":
        """Read every file's footer; no file stays open.

        Args:
            path: a Parquet file, or a directory of them.
            definition: the dataset's, as registered; only roles whose columns it names are read.
            listing: which files to read; those that are there, if left out.

        Raises:
            JobError: a file is missing or unreadable, or lacks a column it should have.
        """
        source = cls(definition)
        for found in (listing or files.find(path)).found:
            with opened(found.path) as parquet:
                stored = parquet.schema_arrow
                given = partitions.constants(
                    found, definition["columns"], stored, definition.get("classes")
                )
                source._given[found.path] = given
                source._read_names(found.path, stored)
                source._check_columns(found.path, partitions.with_constants(stored, given))
                source._add_row_groups(found.path, parquet.metadata)
                source.stored += found.path.stat().st_size
        budgets.rows_of(source.stored).spend(source.rows)
        return source

    @property
    def files(self) -> list[Path]:
        """Every file that is read, in the order of the rows."""
        return list(self._given)

    @property
    def input_type(self) -> pa.DataType:
        """The type that inputs are read as: large_binary for encoded images, else a list."""
        return self._types["input"]

    def batches(
        self, roles: Sequence[str] = ROLES, *, rows: int = 4096
    ) -> Iterator[tuple[int, pa.RecordBatch]]:
        """All rows in order, at most `rows` at a time, each batch with its first position."""
        yield from self._read(self._groups, roles, rows)

    def take(self, positions: Sequence[int], roles: Sequence[str] = ROLES) -> pa.Table:
        """The rows at these positions, in this order.

        Reads only the row groups concerned, each up to the last row asked for, and keeps only the
        rows asked for.

        Raises:
            JobError: there is no such row.
        """
        wanted = np.asarray(positions, dtype=np.int64)
        ordered = np.unique(wanted)
        if len(ordered) and not 0 <= ordered[0] <= ordered[-1] < self.rows:
            raise JobError(CHANGED)
        concerned = [group.until(ordered) for group in self._groups]
        pieces = []
        for first, batch in self._read([g for g in concerned if g.rows], roles, rows=TAKEN_ROWS):
            low, high = np.searchsorted(ordered, [first, first + batch.num_rows])
            if low < high:
                named = pa.array(ordered[low:high] - first)
                pieces.append(batch.take(named))
        schema = pa.schema({role: self._types[role] for role in roles})
        table = pa.Table.from_batches(pieces, schema)
        return table.take(pa.array(np.searchsorted(ordered, wanted)))

    def _read(
        self, groups: Sequence[_RowGroup], roles: Sequence[str], rows: int
    ) -> Iterator[tuple[int, pa.RecordBatch]]:
        """The columns of these roles, batch by batch, each with its first position."""
        names = sorted({name for role in roles for name in self._names[role]})
        decoded = budgets.bytes_of(self.stored)
        for file, of_file in groupby(groups, key=attrgetter("file")):
            given = {name: value for name, value in self._given[file].items() if name in names}
            stored = [name for name in names if name not in given]
            convert = partial(self._by_role, roles=roles, given=given)
            with opened(file) as parquet:
                for group in of_file:
                    first = group.first
                    if group.index >= parquet.metadata.num_row_groups:
                        raise JobError(CHANGED)
                    piece = bounded.Piece(file, group.index, group.rows, stored)
                    size = bounded.rows_that_fit(parquet, piece, BATCH_BYTES, at_most=rows)
                    for batch in bounded.read(parquet, piece, size, BATCH_BYTES, convert):
                        decoded.spend(batch.nbytes)
                        yield first, batch
                        first += batch.num_rows

    def _by_role(
        self, batch: pa.RecordBatch, roles: Sequence[str], given: Mapping[str, pa.Scalar]
    ) -> pa.RecordBatch:
        """The columns of these roles, under their names and in their types."""
        batch = partitions.add_constants(batch, given)
        columns = []
        for role in roles:
            stored = [batch.column(name) for name in self._names[role]]
            if role == "label":
                stored = [self.classes.numbered(stored[0])]
            read = input_columns.read if role == "input" else _uniform
            columns.append(read(stored, self._types[role]))
        return pa.RecordBatch.from_arrays(columns, names=list(roles))

    def _read_names(self, file: Path, schema: pa.Schema) -> None:
        if "label" in self._names:
            self.classes.add(file, schema, self._names["label"][0])

    def _check_columns(self, file: Path, schema: pa.Schema) -> None:
        for role, names in self._names.items():
            for name in names:
                if len(schema.get_all_field_indices(name)) != 1:
                    raise JobError(
                        f"{file.name} has no column {name!r} for {role}; name one of those it has: "
                        f"{', '.join(map(repr, schema.names[:20]))}."
                    )
            stored = [schema.field(name).type for name in names]
            which = f"Column {' and '.join(map(repr, names))}"
            if role == "label" and is_text(stored[0]) and self.classes.names is None:
                raise JobError(
                    f"{which} of {file.name} has the labels as {stored[0]}, and nothing says which "
                    "class has which number. Register the dataset with `classes`: the names in the "
                    "order of the numbers that the model was trained with."
                )
            kind = self._read_as(role, stored)
            if kind is None:
                raise JobError(
                    f"{which} of {file.name} is {' and '.join(map(str, stored))}, but "
                    f"{self._must_be(role)}."
                )
            if self._types.setdefault(role, kind) != kind:
                raise JobError(
                    f"{which} is {' and '.join(map(str, stored))} in {file.name} and something "
                    "else in the files before it. Write all files with one schema."
                )
        input_columns.require_companions_named(self.definition, schema.names)

    def _read_as(self, role: str, stored: Sequence[pa.DataType]) -> pa.DataType | None:
        if role == "input":
            return input_columns.read_as(self.kind, self.arguments, stored)
        return _uniform_type(role, stored[0])

    def _must_be(self, role: str) -> str:
        if role != "input" or self.kind is None:
            accepted = _ACCEPTED.get(role) or input_columns.ACCEPTED[None]
            return f"{role} must be {accepted}. Convert the column"
        return (
            f"{role} of the kind `{self.kind}` must be {input_columns.ACCEPTED[self.kind]}. "
            "Convert the column, or register the dataset with the kind that its inputs are"
        )

    def _add_row_groups(self, file: Path, metadata: pq.FileMetaData) -> None:
        for index in range(metadata.num_row_groups):
            rows = metadata.row_group(index).num_rows
            self._groups.append(_RowGroup(file, index, self.rows, rows))
            self.rows += rows


_ACCEPTED = {
    "sample_id": "text or an integer",
    "split": "text or an integer",
    "label": "an integer, or text where the dataset's `classes` are known",
    "group": "text or an integer, with null for rows without a group: as anything else, such as a "
    "float, one person could be written in two ways",
}


def _uniform_type(role: str, kind: pa.DataType) -> pa.DataType | None:
    """The type this role is read as; None when the column cannot be read as it."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if role == "label":
        return pa.int64() if pa.types.is_integer(kind) or is_text(kind) else None
    if role == "group" and (pa.types.is_null(kind) or _whole(kind)):
        return pa.string()
    return pa.string() if _texts(kind) or pa.types.is_integer(kind) else None


def _whole(kind: pa.DataType) -> bool:
    """Whether the type is of decimals without a fraction: databases export integers as such."""
    return bool(pa.types.is_decimal(kind) and kind.scale == 0)


def _texts(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )


def as_text(ids: pa.Array) -> pa.Array:
    """A column of ids as text."""
    return _uniform([ids], pa.string())


def _uniform(columns: Sequence[pa.Array], kind: pa.DataType) -> pa.Array:
    """The one column as `kind`; text that is not UTF-8 stays as it is."""
    (column,) = columns
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    return column if column.type == kind else column.cast(kind, safe=False)


@contextmanager
def opened(file: Path) -> Iterator[pq.ParquetFile]:
    """The opened file. A faulty file raises a JobError; a disk error stays an OSError."""
    try:
        require_file(file)
        with bounded.open_file(file) as parquet:
            yield parquet
    except LocationRefused as error:
        raise JobError(error.detail) from error
    except FileNotFoundError as error:
        raise JobError(f"There is no file {file}; put it back or correct the URI.") from error
    except PermissionError as error:
        raise JobError(f"The worker may not read {file}; give it read permission.") from error
    except (pa.ArrowException, UnicodeDecodeError, OSError) as error:
        if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno):
            raise
        if "crypt" in str(error):
            reason = f"{file.name} is encrypted; write it again without encryption."
            raise JobError(reason) from error
        raise JobError(
            f"{file.name} is not a readable Parquet file, or is damaged ({_short(error)}); write "
            "it again."
        ) from error


def _short(error: BaseException) -> str:
    return str(error).partition("\n")[0][:200]
