"""The names of a dataset's classes: declared, or in the metadata that `datasets` writes.

Hugging Face's `datasets` writes a ClassLabel column as numbers, and the names into the schema's
metadata. The order of a dictionary (pandas calls it categorical) is not used: Parquet may store
another one in each row group. Such a column is read as the text it stands for.
"""

import json
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from domain.classes import check, first_difference
from domain.errors import JobError

UNKNOWN = int(np.iinfo(np.int64).min)
"""Stands for a text that is none of the classes' names."""

Known = Literal["declared", "huggingface"]


class ClassNames:
    """The names known so far, while a dataset's files are opened one by one."""

    def __init__(self, declared: list[str] | None) -> None:
        self.names = declared
        self.source: Known | None = None if declared is None else "declared"

    def add(self, file: Path, schema: pa.Schema, column: str) -> None:
        """Take the names in this file's metadata, if it has some.

        Raises:
            JobError: they differ from those that are known, or do not tell classes apart.
        """
        found = _in_metadata(schema, column)
        if found is None:
            return
        try:
            check(found, f"the classes in {file.name}")
        except ValueError as error:
            raise JobError(str(error)) from error
        if self.names is None:
            self.names, self.source = found, "huggingface"
        place = first_difference(self.names, found)
        if place is not None:
            here, there = (
                repr(names[place]) if place < len(names) else "no class"
                for names in (found, self.names)
            )
            before = "`classes` says" if self.source == "declared" else "the files before it say"
            raise JobError(
                f"The metadata of {file.name} numbers the classes differently: class {place} is "
                f"{here} there, where {before} {there}. Write all files with one order of the "
                "classes, and declare `classes` in that order or leave it out."
            )

    def numbered(self, column: pa.Array) -> pa.Array:
        """A column of labels (N,) as numbers: text by its name, UNKNOWN where it names no class."""
        if pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        if not is_text(column.type) or self.names is None:
            return column
        places = pc.index_in(column.cast(pa.string()), pa.array(self.names, pa.string()))
        numbers = pc.fill_null(places.cast(pa.int64()), UNKNOWN)
        return pc.if_else(column.is_valid(), numbers, pa.scalar(None, pa.int64()))


def is_text(kind: pa.DataType) -> bool:
    """Whether the type is text, however it is stored."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )


def _in_metadata(schema: pa.Schema, column: str) -> list[str] | None:
    """The names of a ClassLabel column; None where the metadata has none."""
    try:
        said = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        feature = said["info"]["features"][column]
        names = feature["names"] if feature["_type"] == "ClassLabel" else None
    except (KeyError, TypeError, ValueError, RecursionError):
        return None
    is_list = isinstance(names, list) and names and all(isinstance(name, str) for name in names)
    return names if is_list else None
