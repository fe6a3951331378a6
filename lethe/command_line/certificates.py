"""`lethe certificate`: what was certified of a request, for people or as it is signed."""

import time
from collections.abc import Callable
from typing import Annotated, Any, TypeVar
from uuid import UUID

import typer
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.text import Text

from lethe.command_line.options import AsJson, Output, Timeout
from lethe.command_line.screen import Screen, details, found, table, word
from lethe.command_line.session import connect
from lethe.errors import NotYet
from lethe.schemas.requests import Certificate

T = TypeVar("T")


def register(app: typer.Typer) -> None:
    """Add `lethe certificate` to the command line."""
    app.command()(certificate)


def certificate(
    context: typer.Context,
    request_id: Annotated[UUID, typer.Argument(help="The request.", show_default=False)],
    number: Annotated[
        int | None, typer.Option(min=1, help="The newest unless given.", show_default=False)
    ] = None,
    html: Annotated[
        bool, typer.Option("--html", help="The page that can be printed or sent.")
    ] = False,
    output: Output = None,
    timeout: Timeout = 60.0,
    as_json: AsJson = False,
) -> None:
    """Show the certificate of a completed request, as soon as it is issued.

    With --json, or in the file of --output, it is the signed envelope. Only that can be verified:
    see [bold]lethe verify[/bold].
    """
    screen = Screen(as_json)
    with connect(context) as lethe:
        if html:
            page = issued(
                lambda: lethe.read_certificate_page(request_id, number=number), screen, timeout
            )
            screen.deliver(page, output)
            return
        signed = issued(lambda: lethe.read_certificate(request_id, number=number), screen, timeout)
    if output is not None:
        screen.deliver(signed.model_dump_json(indent=2) + "\n", output)
    if output is None or as_json:
        screen.show(signed, picture(signed))


def issued(read: Callable[[], T], screen: Screen, timeout: float | None) -> T:
    """What is read, once the service has signed it.

    Args:
        timeout: seconds; None for as long as it takes.
    """
    end = None if timeout is None else time.monotonic() + timeout
    told = False
    while True:
        try:
            return read()
        except NotYet as early:
            pause = early.retry_after or 1.0
            if end is not None and time.monotonic() + pause > end:
                raise
            if not told:
                screen.say(f"{early.title}. Waiting until it is signed.")
                told = True
        time.sleep(pause)


def picture(signed: Certificate) -> Group:
    """A certificate as people read it. Nothing of it is verified here."""
    predicate = signed.statement["predicate"]
    request, scope, log = predicate["request"], predicate["scope"], predicate["log"]
    facts = details(
        [
            ("certificate", f"number {predicate['issued']['number']}"),
            ("issued", f"{predicate['issued']['at']} by {log['origin']}"),
            ("request", request["id"]),
            ("received", request["received_at"]),
            ("due", request["due_at"]),
            ("completed", request["completed_at"]),
            ("samples", request["samples"]),
            ("commitment", request["commitment"]),
        ]
    )
    limits = "\n".join(f"- {limit}" for limit in scope["not_proven"])
    return Group(
        facts,
        Panel(Text(scope["statement"]), title="What was found"),
        *(part for result in predicate["results"] for part in _result(result)),
        Panel(Text(limits), title="What this does not prove"),
        Text("Not verified here: lethe verify checks the signatures and the log."),
    )


def _result(result: dict[str, Any]) -> list[RenderableType]:
    after = result["after"]
    facts = details(
        [
            ("model", result["model"]),
            ("verdict", word(result["verdict"])),
            ("kind", result["kind"]),
            ("before", _version(result["before"])),
            ("after", after and _version(after)),
            ("forgotten before", result["already_forgotten"] or None),
            ("never trained on", result["not_trained_on"] or None),
            ("accepted by", (result["approval"] or {}).get("decided_by")),
        ]
    )
    columns = ("When", "Test", "Value", "Low", "High", "p", "Result")
    names = ("moment", "name", "value", "low", "high", "p_value")
    rows = [
        [*(test[name] for name in names), found(test["moment"], test["passed"])]
        for test in result["tests"]
    ]
    return [facts, *([table(columns, rows)] if rows else [])]


def _version(version: dict[str, Any]) -> str:
    return f"version {version['version']}, SHA-256 {version['weights_sha256']}"
