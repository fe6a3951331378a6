"""`lethe check`: which samples may not be trained on again."""

from typing import Annotated

import typer

from lethe import Lethe
from lethe.command_line import sample_ids
from lethe.command_line.exits import Exit
from lethe.command_line.following import settled
from lethe.command_line.options import (
    AsJson,
    Column,
    FromFile,
    FromParquet,
    SampleIds,
    Timeout,
)
from lethe.command_line.screen import Screen, word
from lethe.command_line.session import connect
from lethe.schemas.common import JobStatus
from lethe.schemas.datasets import FileCheck


def register(app: typer.Typer) -> None:
    """Add `lethe check` to the command line."""
    app.command()(check)


def check(
    context: typer.Context,
    dataset: Annotated[str, typer.Argument(help="Name of the dataset.", show_default=False)],
    ids: SampleIds = None,
    file: FromFile = None,
    parquet: FromParquet = None,
    uri: Annotated[
        str | None,
        typer.Option(
            metavar="URI", help="A Parquet file where the service may read; a job reads it."
        ),
    ] = None,
    column: Column = "sample_id",
    timeout: Timeout = None,
    as_json: AsJson = False,
) -> None:
    """Find which samples may not be trained on, as a model of the dataset has forgotten them.

    Prints their ids, one per line, or with --uri the numbers of their rows, from 0. Exit status 1
    if there are any.
    """
    screen = Screen(as_json)
    with connect(context) as lethe:
        if uri is not None:
            if ids or file or parquet:
                raise typer.BadParameter("With --uri no ids are named otherwise.")
            raise typer.Exit(_file(lethe, dataset, uri, column, screen, timeout))
        named = sample_ids.gather(ids, file, parquet, column)
        found = lethe.suppressed(dataset, named)
    unique = dict.fromkeys(named)
    listed = [sample_id for sample_id in unique if sample_id in found]
    screen.show({"checked": len(unique), "suppressed": listed}, *listed)
    if not as_json:
        screen.say(f"{len(listed)} of {len(unique)} samples may not be trained on.")
    raise typer.Exit(Exit.NOT_A_SUCCESS if listed else Exit.DONE)


def _file(
    lethe: Lethe, dataset: str, uri: str, column: str, screen: Screen, timeout: float | None
) -> Exit:
    """Have a job read a file where it lies."""
    asked = lethe.check_file(dataset, uri, column=column)
    ended: FileCheck = settled(lethe, asked, screen, timeout=timeout)
    screen.show(ended, *map(str, ended.positions or ()))
    if ended.status is not JobStatus.COMPLETED:
        reason = ended.failure.reason if ended.failure else ended.status
        screen.err.print(word("failed"), f"The file was not checked: {reason}")
        return Exit.NOT_A_SUCCESS
    screen.say(f"{ended.suppressed} of {ended.rows} rows may not be trained on.")
    return Exit.NOT_A_SUCCESS if ended.suppressed else Exit.DONE
