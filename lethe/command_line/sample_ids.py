"""Where sample ids come from: arguments, a file, standard input, or a column of a Parquet file.

Subjects come from options, a file or standard input.
"""

import sys
from collections.abc import Iterable
from pathlib import Path

import typer

STDIN = "-"


def gather_named(
    ids: list[str] | None,
    file: Path | None,
    parquet: Path | None,
    column: str,
    *,
    subjects: list[str] | None,
    subjects_from: Path | None,
) -> tuple[list[str], list[str]]:
    """The ids and the subjects. There need not be both.

    Raises:
        BadParameter: neither is named, or one in several places, or both on standard input.
    """
    elsewhere = bool(ids) or file is not None or parquet is not None
    if not (subjects or subjects_from):
        return gather(ids, file, parquet, column), []
    if str(subjects_from) == STDIN and (ids == [STDIN] or str(file) == STDIN):
        raise typer.BadParameter("Standard input holds either ids or subjects; use a file.")
    who = gather_subjects(subjects, subjects_from)
    return gather(ids, file, parquet, column) if elsewhere else [], who


def gather_subjects(subjects: list[str] | None, file: Path | None) -> list[str]:
    """The subjects from the one place that is named. Raises BadParameter as `gather`."""
    if bool(subjects) == (file is not None):
        raise typer.BadParameter("Name the subjects once: one by one, or in a file.")
    found = subjects if subjects and subjects != [STDIN] else _lines(file)
    if not found:
        raise typer.BadParameter("There are no subjects in it.")
    return found


def gather(
    ids: list[str] | None, file: Path | None, parquet: Path | None, column: str
) -> list[str]:
    """The ids from the one place that is named.

    Raises:
        BadParameter: no place is named, or several; or there is none in it.
    """
    if [bool(ids), file is not None, parquet is not None].count(True) != 1:
        raise typer.BadParameter("Name the samples once: as arguments, with --from or --parquet.")
    if parquet is not None:
        found = _column(parquet, column)
    elif file is not None or ids == [STDIN]:
        found = _lines(file)
    else:
        found = ids or []
    if not found:
        raise typer.BadParameter("There are no sample ids in it.")
    return found


def _lines(file: Path | None) -> list[str]:
    """One id a line; empty lines do not count."""
    try:
        if file is None or str(file) == STDIN:
            return _without_ends(sys.stdin)
        with file.open(encoding="utf-8") as opened:
            return _without_ends(opened)
    except OSError as error:
        raise typer.BadParameter(f"{file} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise typer.BadParameter("It must be text in UTF-8, one line for each.") from None


def _without_ends(lines: Iterable[str]) -> list[str]:
    return [line for line in (line.rstrip("\r\n") for line in lines) if line]


def _column(file: Path, column: str) -> list[str]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        raise typer.BadParameter(
            "Reading Parquet files needs pyarrow. Run `pip install 'lethe[parquet]'`, or write the "
            "ids into a text file, one per line, and use --from."
        ) from None
    try:
        names = parquet.read_schema(file).names
        if column not in names:
            raise typer.BadParameter(f"{file} has no column {column}; name one with --column.")
        values = parquet.read_table(file, columns=[column]).column(column).to_pylist()
    except (OSError, ArrowException) as error:
        raise typer.BadParameter(f"{file} is not a readable Parquet file: {error}") from None
    found = [value for value in values if value is not None]
    if not all(isinstance(value, str) for value in found):
        raise typer.BadParameter(f"The column {column} must hold strings, as sample ids are.")
    return found
