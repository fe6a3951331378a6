"""Columns that are not in a file but in the names of its folders, such as `split=train`."""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from domain.errors import JobError
from worker.data.files import Found


def constants(
    found: Found, roles: Mapping[str, Any], stored: pa.Schema, classes: Sequence[str] | None
) -> dict[str, pa.Scalar]:
    """The columns that the folders of a file give to all of its rows, by name.

    Only those that have a role are given: labels as integers, splits and groups as text. What the
    folders of a file are named besides is of no concern.

    Args:
        roles: what the dataset calls its columns, by role.
        stored: the schema of the file itself.
        classes: the names of the classes that were declared; labels may be named by them.

    Raises:
        JobError: a column is in the file too, cannot be one of folders, or is no integer.
    """
    given: dict[str, pa.Scalar] = {}
    for role, names in roles.items():
        for name in _each(names):
            if name not in found.partitions:
                continue
            value = found.partitions[name]
            if name in stored.names:
                raise JobError(
                    f"Column {name!r} is in {found.path.name} and in the name of a folder above it "
                    f"({name}={value}). Rename the folder, or write the file without the column."
                )
            if role not in ("label", "split", "group"):
                raise JobError(
                    f"Column {name!r} for {role} is in the name of a folder, where all rows share "
                    "it. Write it into the files."
                )
            given[name] = _typed(role, name, value, classes or ())
    return given


def with_constants(schema: pa.Schema, given: Mapping[str, pa.Scalar]) -> pa.Schema:
    """The schema of a file as it is read."""
    for name, value in given.items():
        schema = schema.append(pa.field(name, value.type))
    return schema


def add_constants(batch: pa.RecordBatch, given: Mapping[str, pa.Scalar]) -> pa.RecordBatch:
    """The rows of a file with these columns."""
    for name, value in given.items():
        batch = batch.append_column(name, pa.repeat(value, batch.num_rows))
    return batch


def _typed(role: str, name: str, value: str | None, classes: Sequence[str]) -> pa.Scalar:
    if role != "label" or value is None:
        return pa.scalar(value, pa.int64() if role == "label" else pa.string())
    if value in classes:
        place = classes.index(value)
        if value.lstrip("+-").isdecimal() and int(value) != place:
            raise JobError(
                f"The folder {name}={value} may stand for class number {value}, or for the class "
                f"that `classes` calls {value!r}, which is number {place}. Write the labels into "
                "the files, or give the classes names that are no numbers."
            )
        return pa.scalar(place, pa.int64())
    try:
        return pa.scalar(int(value), pa.int64())
    except (ValueError, OverflowError) as error:
        raise JobError(
            f"The folder {name}={value} stands for a label, which must be an integer or one of "
            "`classes`. Rename it, or declare `classes`."
        ) from error


def _each(names: Any) -> list[str]:
    """The columns of a role, which has one, or several by the network's arguments."""
    if isinstance(names, str):
        return [names]
    return [name for name in names.values() if name is not None]
