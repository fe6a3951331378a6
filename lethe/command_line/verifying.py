"""`lethe verify`: runs the verifier, which trusts nothing but the keys it is given."""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any
from uuid import UUID

import typer

from lethe import Lethe
from lethe.command_line.certificates import issued
from lethe.command_line.options import AsJson, Timeout
from lethe.command_line.screen import Screen
from lethe.command_line.session import connect
from lethe.errors import NotYet

INSTALLED = Path(__file__).parents[1] / "verifier.py"
CHECKOUT = Path(__file__).parents[2] / "verifier/verify.py"
PAUSE_S = 2.0


def register(app: typer.Typer) -> None:
    """Add `lethe verify` to the command line."""
    extras = {"allow_extra_args": True, "ignore_unknown_options": True}
    app.command(context_settings=extras)(verify)


def verify(
    context: typer.Context,
    bundle: Annotated[
        str,
        typer.Argument(
            metavar="BUNDLE|ID",
            help="A bundle that lies here (see `lethe audit bundle`), or the id of a request, the "
            "bundle of which is fetched.",
            show_default=False,
        ),
    ],
    key: Annotated[
        list[str],
        typer.Option(
            help="A key you trust, from elsewhere than this service: public key in PEM, or "
            "name+id+key; a file, or the text."
        ),
    ],
    timeout: Timeout = 60.0,
    as_json: AsJson = False,
) -> None:
    """Verify the evidence of a request, offline once its bundle is here.

    What follows goes to the verifier: --older CHECKPOINT, --weights FILE. To verify the whole log:
    [bold]lethe verify log ENTRIES --checkpoint FILE --key KEY[/bold]

    Exit status: 0 all checks passed; 3 form, 4 signature, 5 inclusion, 6 consistency,
    7 certificate, 8 content. A genuine certificate of a bad outcome has 0 too: read the verdict.
    """
    screen = Screen(as_json)
    if find_spec("cryptography") is None:
        raise typer.BadParameter(
            "Verifying needs the package cryptography. Run `pip install 'lethe[verify]'`."
        )
    keys = [word for one in key for word in ("--key", one)]
    request_id = _request_id(bundle)
    if request_id is None:
        raise typer.Exit(_run([bundle, *context.args, *keys], screen))
    with connect(context) as lethe:
        found = _covering(lethe, request_id, screen, timeout)
    with TemporaryDirectory() as directory:
        file = Path(directory) / "bundle.json"
        file.write_text(json.dumps(found), encoding="utf-8")
        raise typer.Exit(_run([str(file), *context.args, *keys], screen))


def _request_id(given: str) -> UUID | None:
    """The id, where it is one and no file has that name."""
    if Path(given).exists():
        return None
    try:
        return UUID(given)
    except ValueError:
        return None


def _covering(
    lethe: Lethe, request_id: UUID, screen: Screen, timeout: float | None
) -> dict[str, Any]:
    """The bundle, once a checkpoint covers the request's certificate."""
    issued(lambda: lethe.read_certificate(request_id), screen, timeout)

    def read() -> dict[str, Any]:
        found = lethe.read_bundle(request_id)
        if found.get("certificate") is None:
            detail = "No checkpoint covers the certificate yet; try again in a minute."
            members = {"title": "Not signed yet", "detail": detail}
            raise NotYet(409, members, retry_after=PAUSE_S)
        return found

    return issued(read, screen, timeout)


def _run(words: list[str], screen: Screen) -> int:
    """Run the verifier; its exit status."""
    program = INSTALLED if INSTALLED.exists() else CHECKOUT
    command = [sys.executable, "-P", str(program), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if screen.as_json:
        screen.show(
            {
                "valid": done.returncode == 0,
                "exit_status": done.returncode,
                "report": done.stdout + done.stderr,
            }
        )
    else:
        sys.stderr.write(done.stderr)
        screen.write(done.stdout)
    return done.returncode
