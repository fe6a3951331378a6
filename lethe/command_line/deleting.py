"""`lethe model delete` and `lethe dataset delete`."""

from typing import Annotated

import typer
from rich.table import Table

from lethe.command_line.following import settled
from lethe.command_line.options import AsJson, Follow, Timeout, Wait
from lethe.command_line.screen import Screen, details, word
from lethe.command_line.session import connect
from lethe.schemas.common import Registered

Name = Annotated[str, typer.Argument(help="What is to be deleted.", show_default=False)]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def register(models: typer.Typer, datasets: typer.Typer) -> None:
    """Add the commands to those of models and datasets."""
    models.command("delete")(delete_model)
    datasets.command("delete")(delete_dataset)


def delete_model(
    context: typer.Context,
    name: Name,
    yes: Yes = False,
    wait: Wait = False,
    follow: Follow = False,
    timeout: Timeout = None,
    as_json: AsJson = False,
) -> None:
    """Delete a model with all its versions, and have their files purged.

    Refused while a deletion request or a job needs it. Certificates stay, and the name stays taken.
    """
    _confirm(yes, f"Delete the model {name} with all its versions, for good?")
    screen = Screen(as_json)
    with connect(context) as lethe:
        gone = lethe.delete_model(name)
        if wait or follow:
            gone = settled(lethe, gone, screen, timeout=timeout, watched=follow)
    screen.show(gone, _picture(gone))


def delete_dataset(
    context: typer.Context,
    name: Name,
    yes: Yes = False,
    wait: Wait = False,
    follow: Follow = False,
    timeout: Timeout = None,
    as_json: AsJson = False,
) -> None:
    """Delete a dataset with its index. Its files stay, and what is suppressed stays suppressed.

    Refused while models were trained on it: delete those first. The name stays taken.
    """
    _confirm(yes, f"Delete the dataset {name} with its index, for good?")
    screen = Screen(as_json)
    with connect(context) as lethe:
        gone = lethe.delete_dataset(name)
        if wait or follow:
            gone = settled(lethe, gone, screen, timeout=timeout, watched=follow)
    screen.show(gone, _picture(gone))


def _confirm(yes: bool, question: str) -> None:
    if not yes:
        typer.confirm(question, abort=True, err=True)


def _picture(gone: Registered) -> Table:
    return details(
        [
            ("name", gone.name),
            ("status", word(gone.status)),
            ("deleted", gone.deleted_at),
            ("purged", gone.purged_at),
            ("job", gone.job_id),
        ]
    )
