"""`lethe subject`: what there is of a person, an account or a household."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from lethe.command_line import sample_ids
from lethe.command_line.exits import Exit
from lethe.command_line.options import AsJson
from lethe.command_line.screen import Screen, counted, details, table
from lethe.command_line.session import connect
from lethe.schemas.subjects import DatasetLookedUp, Lookup, ModelLookedUp

app = typer.Typer(no_args_is_help=True, help="People, accounts and households.")


@app.callback()
def subject() -> None:
    """People, accounts and households."""


@app.command()
def lookup(
    context: typer.Context,
    subjects: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[WHO]...",
            help="As the dataset's group column names them; `-` reads them from standard input, "
            "one per line. Arguments stay in the shell's history: better use a file.",
            show_default=False,
        ),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option("--from", metavar="FILE", help="Read subjects from a file, one per line."),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option("--dataset", "-d", metavar="NAME", help="Look into this dataset alone."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """See what a deletion request for them would touch. Changes nothing; the audit trail is told.

    Exit status 1 if there is nothing of some of them.
    """
    screen = Screen(as_json)
    who = sample_ids.gather_subjects(subjects, file)
    with connect(context) as lethe:
        found = lethe.lookup_subjects(who, dataset=dataset)
    screen.show(found, details(_summary(found)), *map(_dataset, found.datasets))
    raise typer.Exit(Exit.NOT_A_SUCCESS if found.unknown_count else Exit.DONE)


def _summary(found: Lookup) -> list[tuple[str, object]]:
    samples = sum(sum(_splits(each).values()) for each in found.datasets)
    models = sum(len(each.models) for each in found.datasets)
    where = f"{counted(len(found.datasets), 'dataset')}, {counted(models, 'model')}"
    return [
        ("subjects", found.subjects),
        ("resolved", f"{counted(samples, 'sample')} in {where}"),
        ("not found", found.unknown_count or None),
        ("nothing in", ", ".join(found.without) or None),
        ("not looked into", ", ".join(found.not_looked_into) or None),
    ]


def _splits(found: DatasetLookedUp) -> dict[str, int]:
    split = found.samples
    return {"train": split.train, "holdout": split.holdout, "test": split.test}


def _dataset(found: DatasetLookedUp) -> Table:
    splits = ", ".join(f"{number} {split}" for split, number in _splits(found).items() if number)
    return table(
        [f"Dataset {found.dataset}: {splits}", "Forgotten", "Would forget", "Held by"],
        ((each.model, each.already_forgotten, each.left, _holders(each)) for each in found.models),
    )


def _holders(model: ModelLookedUp) -> str | None:
    held = [
        f"{each.kind}" + (f" of version {each.version} ({each.status})" if each.version else "")
        for each in model.held_by
    ]
    return ", ".join(held) or None
