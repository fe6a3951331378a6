"""The connection that commands use."""

from dataclasses import dataclass

import typer

from lethe import Lethe
from lethe.command_line import credentials


@dataclass(frozen=True, slots=True)
class Target:
    """What was said before the command: which service."""

    url: str | None
    insecure: bool


def connect(context: typer.Context) -> Lethe:
    """A client of the service that the command line, the environment or `lethe login` names."""
    target = context.find_object(Target) or Target(None, insecure=False)
    found = credentials.find(target.url, insecure=target.insecure)
    return Lethe(found.url, found.key, insecure=found.insecure)
