"""`lethe login` and `lethe logout`."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from lethe import Lethe
from lethe.command_line import credentials
from lethe.command_line.options import AsJson
from lethe.command_line.screen import Screen
from lethe.command_line.session import Target


def register(app: typer.Typer) -> None:
    """Add `lethe login` and `lethe logout` to the command line."""
    app.command()(login)
    app.command()(logout)


def login(
    context: typer.Context,
    url: Annotated[
        str | None, typer.Argument(help="Where the service is: https://…", show_default=False)
    ] = None,
    key_file: Annotated[
        Path | None,
        typer.Option(
            "--key-file", metavar="FILE", help="Read the key from a file; `-` for standard input."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Store the URL and the key of a service for the other commands.

    The key is asked for, or read from a file or from standard input. It is no argument, as
    arguments stay in the shell's history. It is tried before it is stored.
    """
    target = context.find_object(Target) or Target(None, insecure=False)
    address = url or target.url or typer.prompt("URL of the service", err=True)
    found = credentials.Credentials(address, _key(key_file), target.insecure)
    with Lethe(found.url, found.key, insecure=found.insecure) as lethe:
        next(lethe.list_models(), None)
        found = credentials.Credentials(lethe.url, found.key, found.insecure)
    file = credentials.store(found)
    screen = Screen(as_json)
    screen.show({"url": found.url, "file": str(file)}, f"Logged in to {found.url}.")


def logout(as_json: AsJson = False) -> None:
    """Delete the stored URL and key."""
    deleted = credentials.forget()
    said = "The stored key is deleted." if deleted else "No key was stored."
    Screen(as_json).show({"deleted": deleted}, said)


def _key(file: Path | None) -> str:
    if file is not None and str(file) != "-":
        return file.read_text(encoding="utf-8").strip()
    if file is not None or not sys.stdin.isatty():
        return sys.stdin.readline().strip()
    return str(typer.prompt("Key", hide_input=True, err=True)).strip()
