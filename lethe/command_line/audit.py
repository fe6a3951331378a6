"""`lethe audit`: the audit trail, and what proves that nobody changed it."""

import json
from itertools import islice
from typing import Annotated
from uuid import UUID

import typer

from lethe.command_line.options import AsJson, Limit, Output
from lethe.command_line.screen import Screen, details, table
from lethe.command_line.session import connect
from lethe.schemas.audit import ConsistencyProof, InclusionProof

app = typer.Typer(no_args_is_help=True, help="What happened, and the proofs of it.")

Size = Annotated[
    int | None,
    typer.Option(min=1, help="Events in the checkpoint; the newest one's unless given."),
]


@app.command()
def events(
    context: typer.Context,
    subject: Annotated[
        UUID | None,
        typer.Option(help="Only what happened to this request, job, model or dataset."),
    ] = None,
    limit: Limit = 200,
    as_json: AsJson = False,
) -> None:
    """List what happened, the oldest first."""
    with connect(context) as lethe:
        found = list(islice(lethe.list_audit_events(subject_id=subject), limit))
    columns = ("Position", "At", "Who", "Event", "To", "Data")
    rows = ((e.position, e.at, e.actor, e.event, e.subject_id, e.data) for e in found)
    Screen(as_json).show(found, table(columns, rows))


@app.command()
def entries(
    context: typer.Context,
    start: Annotated[int, typer.Option(min=0, help="Position of the first one.")] = 0,
    output: Output = None,
    as_json: AsJson = False,
) -> None:
    """Write the log itself, one entry per line, as `lethe verify log` reads it.

    With --json it is one array; the bytes that are hashed are the lines without it.
    """
    with connect(context) as lethe:
        lines = lethe.list_entries(start=start)
        if as_json:
            Screen(as_json).show([json.loads(line) for line in lines])
            return
        if output is None:
            for line in lines:
                typer.echo(line)
            return
        with output.open("w", encoding="utf-8", newline="\n") as file:
            file.writelines(f"{line}\n" for line in lines)


@app.command()
def bundle(
    context: typer.Context,
    request_id: Annotated[UUID, typer.Argument(help="The request.", show_default=False)],
    since: Annotated[
        int | None, typer.Option(min=1, help="Size of a checkpoint you kept, to be continued.")
    ] = None,
    output: Output = None,
    as_json: AsJson = False,
) -> None:
    """Fetch all that an auditor needs to verify a request offline. It is JSON in any case."""
    with connect(context) as lethe:
        found = lethe.read_bundle(request_id, since=since)
    Screen(as_json).deliver(json.dumps(found, ensure_ascii=False, indent=1) + "\n", output)


@app.command()
def checkpoint(
    context: typer.Context, size: Size = None, output: Output = None, as_json: AsJson = False
) -> None:
    """Fetch the signed head of the log. Keep it: it proves that nothing before it was changed."""
    screen = Screen(as_json)
    with connect(context) as lethe:
        note = lethe.read_checkpoint(size=size)
    if as_json:
        screen.show({"checkpoint": note})
    else:
        screen.deliver(note, output)


@app.command()
def proof(
    context: typer.Context,
    position: Annotated[
        int | None, typer.Option(min=0, help="Prove that this event is in the log.")
    ] = None,
    old: Annotated[
        int | None, typer.Option(min=1, help="Prove that the log continues one of this size.")
    ] = None,
    size: Size = None,
    as_json: AsJson = False,
) -> None:
    """Fetch a proof of inclusion (--position) or of consistency (--old)."""
    with connect(context) as lethe:
        found: InclusionProof | ConsistencyProof
        if position is not None and old is None:
            found = lethe.prove_inclusion(position, size=size)
        elif old is not None and position is None:
            found = lethe.prove_consistency(old, size=size)
        else:
            raise typer.BadParameter("Give one of --position and --old.")
    members = found.model_dump()
    hashes = members.pop("proof")
    Screen(as_json).show(found, details([*members.items(), *(("hash", one) for one in hashes)]))
