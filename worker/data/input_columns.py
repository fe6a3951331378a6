"""The columns that hold the inputs of a dataset: the types they may have, and how they are read.

Inputs are read as one Arrow column, however the files store them: large binary for images, large
lists for arrays, or a struct with one large list per argument of the network where
`columns.input` names several columns.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from domain.errors import JobError
from domain.preprocessing import InputKind

ACCEPTED: Mapping[InputKind | None, str] = {
    InputKind.IMAGE: "encoded images (binary, or a struct with a binary field `bytes`)",
    InputKind.PIXELS: "a flat list of numbers",
    InputKind.TOKENS: "a flat list of integers",
    InputKind.FEATURES: "a flat list of numbers",
    None: "an encoded image (binary, or a struct with a binary field `bytes`) "
    "or a flat list of numbers",
}
"""What a column of each kind of inputs must be; None for datasets of older releases."""

COMPANIONS = (
    "attention_mask",
    "token_type_ids",
    "position_ids",
    "global_attention_mask",
    "langs",
    "bbox",
)
"""What a network of transformers may take beside token ids, under the name it has there."""


def named(columns: Mapping[str, Any]) -> tuple[list[str], list[str] | None]:
    """The input columns, and the names of the network's arguments that they are for.

    None instead of names if there is one column, which is the network's only argument. Columns
    that are left out on purpose (null) are not among them.
    """
    given = columns["input"]
    if isinstance(given, str):
        return [given], None
    used = {argument: column for argument, column in given.items() if column is not None}
    return list(used.values()), list(used)


def read_as(
    kind: InputKind | None, arguments: Sequence[str] | None, types: Sequence[pa.DataType]
) -> pa.DataType | None:
    """The type that input columns of these types are read as; None if the kind does not fit."""
    if arguments is not None:
        whole = all(_is_list(each, pa.types.is_integer, pa.types.is_boolean) for each in types)
        ids = pa.large_list(pa.int64())
        return pa.struct([(argument, ids) for argument in arguments]) if whole else None
    (one,) = types
    if pa.types.is_dictionary(one):
        one = one.value_type
    if pa.types.is_struct(one) and one.get_field_index("bytes") >= 0:
        one = one.field("bytes").type
    if pa.types.is_binary(one) or pa.types.is_large_binary(one):
        return pa.large_binary() if kind in (InputKind.IMAGE, None) else None
    if kind is InputKind.IMAGE:
        return None
    fitting = [pa.types.is_integer]
    if kind is not InputKind.TOKENS:
        fitting.append(pa.types.is_floating)
    return pa.large_list(one.value_type) if _is_list(one, *fitting) else None


def read(columns: Sequence[pa.Array], kind: pa.DataType) -> pa.Array:
    """Input columns (N,) as one of the type that `read_as` gave; null where any of them is null."""
    if not pa.types.is_struct(kind):
        (column,) = columns
        if pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        if pa.types.is_struct(column.type):
            column = pc.struct_field(column, "bytes")
        return _cast(column, kind)
    parts = [_cast(column, kind.field(index).type) for index, column in enumerate(columns)]
    missing = pa.array([False] * len(parts[0]))
    for part in parts:
        missing = pc.or_(missing, part.is_null())
    return pa.StructArray.from_arrays(parts, fields=list(kind), mask=missing)


def require_companions_named(definition: Mapping[str, Any], present: Sequence[str]) -> None:
    """Refuse that a further input of a sequence network is silently dropped.

    Args:
        definition: the dataset's.
        present: the columns that the files have.

    Raises:
        JobError: a column has the name of such an input, and `columns.input` does not mention it.
    """
    given = definition["columns"].get("input")
    if definition.get("kind") != InputKind.TOKENS.value or given is None:
        return
    known = {given} if isinstance(given, str) else {*given, *given.values()}
    silent = [name for name in COMPANIONS if name in present and name not in known]
    if silent:
        ids = {"input_ids": given} if isinstance(given, str) else dict(given)
        example = ", ".join(
            f'"{argument}": ' + ("null" if column is None else f'"{column}"')
            for argument, column in {**ids, **{name: name for name in silent}}.items()
        )
        raise JobError(
            f"The files also have {'the column' if len(silent) == 1 else 'the columns'} "
            f"{', '.join(map(repr, silent))}, without which a network may answer otherwise than "
            f"it was trained. Register the dataset with columns.input {{{example}}}, or with null "
            "instead of a column that the network was not trained on."
        )


def _is_list(kind: pa.DataType, *of: Any) -> bool:
    lists = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(test(kind) for test in lists) and any(test(kind.value_type) for test in of)


def _cast(column: pa.Array, kind: pa.DataType) -> pa.Array:
    return column if column.type == kind else column.cast(kind, safe=False)
