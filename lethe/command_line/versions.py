"""`lethe model add-version`: weights of a model that were trained elsewhere."""

from datetime import datetime
from typing import Annotated

import typer
from rich.table import Table

from lethe.command_line import models
from lethe.command_line.datasets import registered
from lethe.command_line.following import settled
from lethe.command_line.options import AsJson, Follow, Timeout, Wait
from lethe.command_line.screen import Screen, details, word
from lethe.command_line.session import connect
from lethe.schemas.models import ExpectedAccuracy
from lethe.schemas.registrations import TrainedOnFile, TrainedOnSplit, VersionRegistration


def register(app: typer.Typer) -> None:
    """Add `lethe model add-version` to the commands of models."""
    app.command()(add_version)


def add_version(
    context: typer.Context,
    name: models.Name,
    weights: Annotated[
        str,
        typer.Argument(
            help="A .safetensors file, where the service may read: file:///… (for Transformers its "
            "directory).",
            show_default=False,
        ),
    ],
    trained_on: Annotated[
        str | None,
        typer.Option(
            metavar="URI",
            help="A Parquet file, where the service may read, with the ids of the training samples "
            "and of no others.",
        ),
    ] = None,
    column: Annotated[
        str, typer.Option(metavar="NAME", help="The column that has the sample ids.")
    ] = "sample_id",
    split_read_at: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Instead: it was trained on the dataset's training split as it was then, without "
            "what was suppressed; such as 2026-12-01T06:00:00+01:00.",
        ),
    ] = None,
    expect_train: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Accuracy on the training samples, as you measured it."),
    ] = None,
    expect_holdout: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Accuracy on the hold-out, as you measured it."),
    ] = None,
    accept_accuracy: Annotated[
        bool,
        typer.Option("--accept-accuracy", help="Even if it answers as no trained network does."),
    ] = False,
    accept_memory: Annotated[
        bool,
        typer.Option("--accept-memory", help="Even if it can tell what it should not know."),
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
    """Register weights of a model that you trained again, to be served from now on.

    Weights that were trained on what is forgotten are refused. Exit status 1 if they are.
    """
    screen = Screen(as_json)
    if (trained_on is None) == (split_read_at is None):
        raise typer.BadParameter(
            "Say what it was trained on: one of --trained-on and --split-read-at."
        )
    expected = {"train": expect_train, "holdout": expect_holdout}
    expected = {split: value for split, value in expected.items() if value is not None}
    with connect(context) as lethe:
        made = lethe.register_version(
            name,
            weights=weights,
            trained_on=TrainedOnFile(uri=trained_on, column=column)
            if trained_on is not None
            else TrainedOnSplit(split_read_at=_moment(split_read_at or "")),
            expected_accuracy=ExpectedAccuracy(**expected) if expected else None,
            accept_accuracy=accept_accuracy or None,
            accept_memory=accept_memory or None,
            idempotency_key=idempotency_key,
        )
        if wait or follow:
            made = settled(lethe, made, screen, timeout=timeout, watched=follow)
    screen.show(made, _picture(made))
    raise typer.Exit(registered(made.status))


def _moment(given: str) -> datetime:
    try:
        moment = datetime.fromisoformat(given)
        if moment.tzinfo is not None:
            return moment
    except ValueError:
        pass
    raise typer.BadParameter(
        f"{given!r}: give a date and a time with its offset, as in 2026-12-01T06:00:00+01:00."
    )


def _picture(made: VersionRegistration) -> Table:
    found = made.found
    return details(
        [
            ("model", made.model),
            ("status", word(made.status)),
            ("failure", made.failure),
            ("version", made.version),
            ("weights", made.weights),
            ("trained on", found and f"{found.trained_on} samples"),
            ("left out", found and f"{found.left_out} samples, forgotten from now on"),
            ("requests answered", found and found.requests),
            ("looked for in it", found and f"{found.remeasured} forgotten samples"),
            ("accepted", found and ", ".join(found.accepted)),
            ("registration", made.id),
            ("job", made.job_id),
        ]
    )
