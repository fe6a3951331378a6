"""`lethe dataset add-state`: the rows that a dataset has now."""

from typing import Annotated

import typer
from rich.table import Table

from lethe.command_line.datasets import registered
from lethe.command_line.following import settled
from lethe.command_line.options import AsJson, Follow, Timeout, Wait
from lethe.command_line.screen import Screen, details, word
from lethe.command_line.session import connect
from lethe.schemas.states import DatasetState


def register(app: typer.Typer) -> None:
    """Add `lethe dataset add-state` to the commands of datasets."""
    app.command()(add_state)


def add_state(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Name of the dataset.", show_default=False)],
    uri: Annotated[
        str | None,
        typer.Argument(
            help="Where its files are now, where the service may read: file:///… Left out if they "
            "replaced those that were indexed.",
            show_default=False,
        ),
    ] = None,
    refuse_suppressed: Annotated[
        bool,
        typer.Option(
            "--refuse-suppressed", help="Not if samples come back that may not be trained on."
        ),
    ] = False,
    idempotency_key: Annotated[
        str | None,
        typer.Option(metavar="KEY", help="Sent again with the same key, it changes nothing."),
    ] = None,
    wait: Wait = False,
    follow: Follow = False,
    timeout: Timeout = None,
    as_json: AsJson = False,
) -> None:
    """Tell that a dataset has other rows now. Models stay with what they were trained on.

    Exit status 1 if the state could not be indexed; the one before stays.
    """
    screen = Screen(as_json)
    with connect(context) as lethe:
        made = lethe.register_state(
            name,
            uri,
            refuse_suppressed=refuse_suppressed or None,
            idempotency_key=idempotency_key,
        )
        if wait or follow:
            made = settled(lethe, made, screen, timeout=timeout, watched=follow)
    screen.show(made, _picture(made))
    raise typer.Exit(registered(made.status))


def _picture(made: DatasetState) -> Table:
    found = made.found.model_dump() if made.found else {}
    known = found.pop("still_known", {})
    return details(
        [
            ("dataset", made.dataset),
            ("status", word(made.status)),
            ("failure", made.failure),
            ("state", made.number),
            ("uri", made.uri),
            *((name.replace("_", " "), count) for name, count in found.items()),
            *((f"still known to {model}", count) for model, count in known.items()),
            ("id", made.id),
            ("job", made.job_id),
        ]
    )
