"""`lethe dataset`: add, list, show."""

from itertools import islice
from typing import Annotated

import typer
from rich.table import Table

from lethe.command_line import sample_ids
from lethe.command_line.exits import Exit
from lethe.command_line.following import settled
from lethe.command_line.options import (
    AsJson,
    Column,
    Follow,
    FromFile,
    FromParquet,
    Limit,
    SampleIds,
    Timeout,
    Wait,
)
from lethe.command_line.screen import Screen, details, table, word
from lethe.command_line.session import connect
from lethe.schemas.common import RegistrationStatus
from lethe.schemas.datasets import (
    BadRows,
    Columns,
    Dataset,
    Erase,
    InputKind,
    LeakingGroups,
    Splits,
)

app = typer.Typer(no_args_is_help=True, help="What models were trained on.")

Name = Annotated[str, typer.Argument(help="Name of the dataset.", show_default=False)]


@app.command()
def add(
    context: typer.Context,
    name: Name,
    uri: Annotated[
        str,
        typer.Argument(
            help="A Parquet file or a directory of them, where the service may read: file:///…",
            show_default=False,
        ),
    ],
    kind: Annotated[
        InputKind,
        typer.Option(
            help="What the inputs are: image files, arrays of raw pixel values, token ids, or "
            "numbers that the network takes as they are.",
            show_default=False,
        ),
    ],
    sample_id: Annotated[str, typer.Option(help="Column with the ids.")] = "sample_id",
    inputs: Annotated[
        list[str],
        typer.Option(
            "--input",
            metavar="COLUMN or ARGUMENT=COLUMN",
            help="Column with the inputs; of several, one for each argument of the network. "
            "ARGUMENT= leaves that column of the file out.",
        ),
    ] = ["image"],  # noqa: B006 (typer copies it)
    label: Annotated[str, typer.Option(help="Column with the class numbers, or names.")] = "label",
    split: Annotated[str, typer.Option(help="Column with the splits.")] = "split",
    group: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN",
            help="Column with whose sample it is: a person, an account or a household.",
        ),
    ] = None,
    train: Annotated[str, typer.Option(help="Value of the training split.")] = "train",
    holdout: Annotated[
        str, typer.Option(help="Value of the split that no model was trained on.")
    ] = "holdout",
    test: Annotated[str, typer.Option(help="Value of the test split.")] = "test",
    no_test: Annotated[bool, typer.Option("--no-test", help="There is no test split.")] = False,
    input_shape: Annotated[
        str | None, typer.Option(metavar="3,32,32", help="Shape of one input, if not an image.")
    ] = None,
    classes: Annotated[
        list[str] | None,
        typer.Option("--class", help="Name of a class; repeated, in the order of the numbers."),
    ] = None,
    skip_bad_rows: Annotated[
        bool, typer.Option("--skip-bad-rows", help="Leave out rows that cannot be read.")
    ] = False,
    refuse_leaks: Annotated[
        bool,
        typer.Option(
            "--refuse-leaking-groups",
            help="Fail if a group stands in training and in another split too.",
        ),
    ] = False,
    erase_parquet: Annotated[
        bool,
        typer.Option("--erase-parquet", help="Also delete the rows of forgotten samples."),
    ] = False,
    wait: Wait = False,
    follow: Follow = False,
    timeout: Timeout = None,
    as_json: AsJson = False,
) -> None:
    """Register a dataset. A job indexes it; sending the same again is harmless."""
    screen = Screen(as_json)
    columns = Columns(sample_id=sample_id, input=_inputs(inputs), label=label, split=split)
    if group is not None:  # an older service does not know it
        columns = columns.model_copy(update={"group": group})
    splits = Splits(train=train, holdout=holdout, test=None if no_test else test)
    with connect(context) as lethe:
        made = lethe.register_dataset(
            name,
            uri,
            kind=kind,
            columns=columns,
            splits=splits,
            input_shape=_shape(input_shape),
            classes=classes or None,
            bad_rows=BadRows.SKIP if skip_bad_rows else None,
            leaking_groups=LeakingGroups.REFUSE if refuse_leaks else None,
            erase=Erase(parquet=True) if erase_parquet else None,
        )
        if wait or follow:
            made = settled(lethe, made, screen, timeout=timeout, watched=follow)
    screen.show(made, _picture(made))
    raise typer.Exit(registered(made.status))


@app.command("list")
def show_all(context: typer.Context, limit: Limit = 50, as_json: AsJson = False) -> None:
    """List datasets, the newest first."""
    with connect(context) as lethe:
        found = list(islice(lethe.list_datasets(), limit))
    columns = ("Dataset", "Status", "Registered", "URI")
    rows = ((one.name, word(one.status), one.created_at, one.uri) for one in found)
    Screen(as_json).show(found, table(columns, rows))


@app.command()
def show(context: typer.Context, name: Name, as_json: AsJson = False) -> None:
    """Show one dataset, and what indexing found."""
    with connect(context) as lethe:
        read = lethe.read_dataset(name)
    Screen(as_json).show(read, _picture(read))


def registered(status: RegistrationStatus) -> Exit:
    """The exit status after something was registered."""
    return Exit.NOT_A_SUCCESS if status is RegistrationStatus.FAILED else Exit.DONE


@app.command()
def lift(
    context: typer.Context,
    name: Name,
    reason: Annotated[str, typer.Option(help="Why, such as where the new consent is recorded.")],
    authorised_by: Annotated[str, typer.Option(help="The person who answers for it.")],
    ids: SampleIds = None,
    file: FromFile = None,
    parquet: FromParquet = None,
    column: Column = "sample_id",
    as_json: AsJson = False,
) -> None:
    """Let samples that models have forgotten be trained on again, as after a new consent.

    Exit status 1 if some were not suppressed.
    """
    screen = Screen(as_json)
    with connect(context) as lethe:
        named = sample_ids.gather(ids, file, parquet, column)
        done = lethe.lift_suppression(name, named, reason=reason, authorised_by=authorised_by)
    screen.show(done, *done.not_suppressed)
    lifted = done.lift.samples if done.lift else 0
    screen.say(
        f"{lifted} samples may be trained on again; {len(done.already_lifted)} might before, "
        f"{len(done.not_suppressed)} were not suppressed."
    )
    raise typer.Exit(Exit.NOT_A_SUCCESS if done.not_suppressed else Exit.DONE)


@app.command()
def lifts(context: typer.Context, name: Name, limit: Limit = 20, as_json: AsJson = False) -> None:
    """List who lifted suppressions of a dataset and why, newest first."""
    screen = Screen(as_json)
    with connect(context) as lethe:
        found = list(islice(lethe.list_lifts(name), limit))
    screen.show(
        found,
        table(
            ["lifted", "samples", "still lifted", "authorised by", "reason"],
            (
                (each.lifted_at, each.samples, each.still_lifted, each.authorised_by, each.reason)
                for each in found
            ),
        ),
    )


def _picture(dataset: Dataset) -> Table:
    return details(
        [
            ("dataset", dataset.name),
            ("status", word(dataset.status)),
            ("failure", dataset.failure),
            ("uri", dataset.uri),
            ("registered", dataset.created_at),
            ("ready", dataset.ready_at),
            ("kind", dataset.kind and word(dataset.kind)),
            ("columns", dataset.columns),
            ("splits", dataset.splits),
            ("classes", dataset.classes and ", ".join(dataset.classes)),
            ("job", dataset.job_id),
            *((dataset.report or {}).items()),
        ]
    )


def _inputs(given: list[str]) -> str | dict[str, str | None]:
    if len(given) == 1 and "=" not in given[0]:
        return given[0]
    named = {}
    for part in given:
        argument, equals, column = part.partition("=")
        if not equals:
            raise typer.BadParameter("--input given several times takes ARGUMENT=COLUMN each time.")
        named[argument] = column or None
    return named


def _shape(given: str | None) -> list[int] | None:
    if given is None:
        return None
    try:
        return [int(part) for part in given.split(",")]
    except ValueError:
        raise typer.BadParameter("--input-shape takes numbers, as in 3,32,32.") from None
