"""Finds what a restored backup brought back, to forget it again: `python -m worker.restore`."""

import json
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any

import httpcore2
import typer
from sqlalchemy import func, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, sessionmaker
from uuid_utils.compat import uuid7

from domain import database_errors, environment, trail
from domain.database import sync_engine, sync_sessions
from domain.events import BackupReplayed
from domain.settings import AdminKey, WorkerSettings
from domain.tables import AuditEvent
from worker.restore import compare, ledger
from worker.restore.compare import Demand, Findings
from worker.store import version_files
from worker.store.artifacts import Store

NOTHING, SOMETHING, USAGE = 0, 1, 2

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


class CommandSettings(WorkerSettings):
    """The settings of the command, besides those of beat."""

    admin_key: AdminKey | None = None
    """The API's key; needed to apply."""


class NotApplied(Exception):
    """The API did not accept a deletion request; the message says why."""


@app.command()
def check(
    apply: Annotated[
        bool,
        typer.Option(
            "--apply", help=("Delete the files and request the deletion of the samples again.")
        ),
    ] = False,
    api: Annotated[
        str, typer.Option(help="The API's address; needed for --apply, with LETHE_ADMIN_KEY.")
    ] = "http://127.0.0.1:8000",
    directory: Annotated[
        Path | None,
        typer.Option(help="Read this copy instead of LETHE_SUPPRESSION_DIRECTORY."),
    ] = None,
    show_ids: Annotated[
        bool, typer.Option("--show-ids", help="Print the sample ids: they are personal data.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Compare the database and the store with the suppression ledger.

    Run it after restoring a backup. Exits with 0 when nothing forgotten came back, with 1 when
    something did (with --apply: when something could not be undone), with 2 when it cannot tell.
    """
    settings = _settings()
    place = directory or settings.suppression_directory
    if place is None:
        raise _unusable("Set LETHE_SUPPRESSION_DIRECTORY, or give --directory.")
    if "@" in api:
        raise _unusable("--api takes an address without a user and a password.")
    if apply and settings.admin_key is None:
        raise _unusable("Set LETHE_ADMIN_KEY: --apply sends deletion requests to the API.")
    engine = sync_engine(settings.database_url, limits=None)
    sessions, store = sync_sessions(engine), Store(settings.store)
    try:
        kept = ledger.read(place)
        found = compare.check(sessions, store, kept, settings.anchor_directory)
        asked, refusal = _apply(sessions, store, found, api, settings) if apply else ([], None)
    except (OSError, ValueError) as error:
        raise _unusable(str(error)) from error
    except DBAPIError as error:
        told = database_errors.told(error)
        raise _unusable(f"The database cannot be used ({told['kind']}): {told['why']}") from error
    finally:
        engine.dispose()
    told = _told(found, show_ids=show_ids) | {"requests": asked, "refusal": refusal}
    if as_json:
        typer.echo(json.dumps(told, indent=2))
    else:
        for line in _lines(told, len(kept.forgotten)):
            typer.echo(line)
    remains = refusal is not None if apply else found.came_back
    raise typer.Exit(SOMETHING if remains else NOTHING)


def _settings() -> CommandSettings:
    try:
        return environment.read(CommandSettings)
    except environment.Unusable as error:
        raise _unusable(f"{error}\nSet these variables as beat has them.") from None


def _unusable(why: str) -> typer.Exit:
    typer.echo(why, err=True)
    return typer.Exit(USAGE)


def _apply(
    sessions: sessionmaker[Session],
    store: Store,
    found: Findings,
    api: str,
    settings: CommandSettings,
) -> tuple[list[str], str | None]:
    """Delete the files that came back, and ask for the samples to be forgotten.

    Idempotent: the same demand has the same `Idempotency-Key`.

    Returns:
        The URLs of the requests, and the first refusal.
    """
    with sessions.begin() as session:
        session.execute(select(func.pg_advisory_xact_lock(version_files.NAMING_LOCK)))
        for file in found.files:
            store.remove(file.digest)
    asked, new, refusal = [], 0, None
    key = settings.admin_key.get_secret_value() if settings.admin_key else ""
    for model in found.models:
        for demand in model.demands:
            try:
                where, is_new = _ask(api, key, model.model, demand)
            except NotApplied as error:
                refusal = refusal or f"{model.model}: {error}"
                continue
            asked.append(where)
            new += is_new
    _record(sessions, found, new)
    return asked, refusal


def _ask(api: str, key: str, model: str, demand: Demand) -> tuple[str, bool]:
    """Submit an ordinary deletion request; return its URL, and whether it is new.

    Raises:
        NotApplied: the API is unreachable, or refused it.
    """
    body = {
        "model": model,
        "sample_ids": list(demand.sample_ids),
        "objective": demand.objective.value,
        "exact": demand.exact,
        "urgent": True,  # it was answered once
        "received_at": demand.received_at.isoformat(),
        "reason": compare.REASON,
    }
    content = json.dumps(body).encode()
    headers = [
        ("Authorization", f"Bearer {key}"),
        ("Content-Type", "application/json"),
        ("Idempotency-Key", f"restored-{sha256(content).hexdigest()}"),
    ]
    url = f"{api.rstrip('/')}/v1/deletion-requests"
    timeouts = dict.fromkeys(("connect", "read", "write", "pool"), 60.0)
    try:
        response = httpcore2.request(
            "POST", url, headers=headers, content=content, extensions={"timeout": timeouts}
        )
    except (
        httpcore2.NetworkError, httpcore2.ProtocolError, httpcore2.TimeoutException,
        httpcore2.UnsupportedProtocol,
    ) as error:  # fmt: skip
        raise NotApplied(
            f"the API at {api} is unreachable ({error}); check that it runs and the address is "
            "right"
        ) from error
    if response.status != 202:
        raise NotApplied(f"the API answered {response.status}: {_detail(response.content)}")
    answered = {name.lower(): value.decode() for name, value in response.headers}
    return answered[b"location"], b"idempotent-replayed" not in answered


def _detail(problem: bytes) -> str:
    """The detail of a problem document."""
    try:
        return str(json.loads(problem)["detail"])
    except (ValueError, KeyError, TypeError):
        return "no problem document; check that the address is the API's"


def _record(sessions: sessionmaker[Session], found: Findings, new_requests: int) -> None:
    """Record the check in the audit trail, if anything was done or the trail was rolled back."""
    rollback = found.rollback
    with sessions.begin() as session:
        told = select(AuditEvent.id).where(
            AuditEvent.event == BackupReplayed.event,
            AuditEvent.data["anchored"].as_integer() == (rollback.anchored if rollback else 0),
        )
        is_told = rollback is None or session.scalars(told.limit(1)).first() is not None
        if not found.files and not new_requests and is_told:
            return
        trail.record(
            session, "worker", uuid7(),
            BackupReplayed(
                requests=new_requests, samples=sum(model.samples for model in found.models),
                files=len(found.files), champions=len(found.served),
                anchored=rollback.anchored if rollback else None,
                agreed=rollback.agreed if rollback else None,
            ),
        )  # fmt: skip


def _told(found: Findings, *, show_ids: bool) -> dict[str, Any]:
    """The findings as JSON."""
    models = []
    for model in found.models:
        told: dict[str, Any] = {
            "model": model.model,
            "dataset": model.dataset,
            "in_database": model.in_database,
            "tombstones_missing": model.missing,
            "samples_back": model.samples,
        }
        if show_ids:
            told["sample_ids"] = sorted(
                sample_id for demand in model.demands for sample_id in demand.sample_ids
            )
        models.append(told)
    rollback = found.rollback
    return {
        "came_back": found.came_back,
        "models": models,
        "champions": [{"model": each.model, "version": each.number} for each in found.served],
        "files": [
            {"model": each.model, "version": each.number, "sha256": each.digest}
            for each in found.files
        ],
        "lifts": [
            {"dataset": lift.dataset, "lifted_at": str(lift.lifted_at), "samples": lift.samples}
            for lift in found.lifts
        ],
        "log": rollback
        and {"anchored": rollback.anchored, "agreed": rollback.agreed, "size": rollback.size},
    }


def _lines(told: dict[str, Any], kept: int) -> Iterator[str]:
    """The findings as text."""
    yield f"{kept} tombstones are kept outside the database."
    for model in told["models"]:
        if not model["in_database"]:
            yield (
                f"Model {model['model']}: not in this database; the ledger has "
                f"{model['tombstones_missing']} tombstones for it."
            )
            continue
        yield (
            f"Model {model['model']}: {model['tombstones_missing']} tombstones are missing; "
            f"{model['samples_back']} samples came back."
        )
        yield from (f"  {sample_id}" for sample_id in model.get("sample_ids", ()))
    for champion in told["champions"]:
        yield (
            f"Model {champion['model']}: version {champion['version']}, which had been superseded, "
            "is served again until the model has forgotten the samples again."
        )
    for file in told["files"]:
        yield (
            f"Model {file['model']}: the file {file['sha256'][:12]}… of version {file['version']} "
            "is in the store again."
        )
    for lift in told["lifts"]:
        yield (
            f"Dataset {lift['dataset']}: the lift of {lift['samples']} suppressions of "
            f"{lift['lifted_at']} is missing; the samples are suppressed until it is repeated."
        )
    if log := told["log"]:
        yield (
            f"The audit trail agrees with the anchored checkpoints up to event {log['agreed']}; "
            f"the newest one has {log['anchored']}, the database now {log['size']}. Events after "
            "that cannot be recovered."
        )
    for where in told["requests"]:
        yield f"To be forgotten again: {where}"
    if told["refusal"]:
        yield f"Not applied: {told['refusal']}"
    if not told["came_back"]:
        yield "Nothing came back."


if __name__ == "__main__":
    app(prog_name="python -m worker.restore")
