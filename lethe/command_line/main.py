"""`lethe`: all commands, and what happens when one fails."""

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, cast

import typer
from rich.text import Text
from typer.rich_utils import rich_format_error

from lethe import __version__, errors
from lethe.command_line import (
    audit,
    certificates,
    checks,
    datasets,
    deleting,
    estimates,
    jobs,
    login,
    models,
    requests,
    states,
    subjects,
    verifying,
    versions,
    webhooks,
)
from lethe.command_line.exits import HELP, Exit, of
from lethe.command_line.screen import Screen
from lethe.command_line.session import Target

app = typer.Typer(
    name="lethe",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    epilog=HELP,
)
for register in (login, requests, estimates, certificates, verifying, checks):
    register.register(app)
app.add_typer(datasets.app, name="dataset")
app.add_typer(subjects.app, name="subject")
app.add_typer(models.app, name="model")
models.register(app)
versions.register(models.app)
states.register(datasets.app)
deleting.register(models.app, datasets.app)
app.add_typer(jobs.app, name="job")
app.add_typer(audit.app, name="audit")
app.add_typer(webhooks.app, name="webhook")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"lethe {__version__}")
        raise typer.Exit


@app.callback()
def root(
    context: typer.Context,
    url: Annotated[
        str | None,
        typer.Option("--url", help="The service; otherwise LETHE_URL, or that of `lethe login`."),
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Let the key travel over plain http://.")
    ] = False,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Make trained classifiers forget: the command line of the Lethe service.

    Begin with [bold]lethe login[/bold]. Every command has [bold]--help[/bold], and
    [bold]--json[/bold] for programs.
    """
    context.obj = Target(url, insecure)


def main() -> None:
    """The console script."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Carry a command out; its exit status."""
    screen = Screen("--json" in arguments)
    try:
        status = app(list(arguments), prog_name="lethe", standalone_mode=False)
        return int(status or Exit.DONE)
    except typer.TyperException as error:
        _usage(screen, error)
        return error.exit_code
    except errors.LetheError as error:
        _report(screen, error)
        return of(error)
    except BrokenPipeError:  # `lethe … | head`
        sys.stdout = None
        return Exit.NOT_A_SUCCESS
    except OSError as error:
        _tell(screen, "file", f"{error.filename or 'A file'}: {error.strerror}.", Exit.USAGE)
        return Exit.USAGE
    except (KeyboardInterrupt, typer.Abort):
        return Exit.INTERRUPTED


def _usage(screen: Screen, error: typer.TyperException) -> None:
    """Tell what is wrong with the arguments."""
    if screen.as_json:
        _tell(screen, "usage", error.format_message(), Exit.USAGE)
    else:
        rich_format_error(cast("Any", error))


def _report(screen: Screen, error: errors.LetheError) -> None:
    """Tell why the service did not do it."""
    if not isinstance(error, errors.Problem):
        _tell(screen, _kind(error), str(error), of(error))
    elif screen.as_json:
        _tell(screen, error.type, error.detail, of(error), error.members)
    else:
        screen.err.print(Text.assemble(("Error: ", "bold red"), f"{error.title}. {error.detail}"))
        for field in error.errors:
            where = ".".join(str(part) for part in field.get("loc", [])[1:])
            screen.say(f"  {where}: {field.get('msg')}")
        if isinstance(error, errors.UnknownSamples):
            screen.say("  --json shows the first 100 of them.")
        if isinstance(error, errors.UnknownSubjects):
            places = ", ".join(str(place + 1) for place in error.unknown_positions)
            screen.say(f"  They are these of the subjects, counted from 1: {places}.")


def _tell(
    screen: Screen, kind: str, detail: str, status: Exit, members: Mapping[str, Any] = {}
) -> None:
    """Print an error: as a sentence, or as JSON with what else is known of it."""
    if screen.as_json:
        error = {"type": kind, "detail": detail, **members, "exit_status": int(status)}
        screen.write(json.dumps({"error": error}, ensure_ascii=False) + "\n")
    else:
        screen.err.print(Text.assemble(("Error: ", "bold red"), detail))


def _kind(error: errors.LetheError) -> str:
    """The name of an exception as programs match on it: `still-waiting`."""
    name = type(error).__name__
    return "".join(f"-{letter.lower()}" if letter.isupper() else letter for letter in name)[1:]
