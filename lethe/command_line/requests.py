"""`lethe forget`, `status`, `cancel`, `decide` and `shred`."""

from datetime import UTC, datetime, timedelta, tzinfo
from itertools import islice
from typing import Annotated, cast
from uuid import UUID
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import typer
from rich.console import Group
from rich.table import Table

from lethe.command_line import sample_ids
from lethe.command_line.exits import Exit
from lethe.command_line.following import settled
from lethe.command_line.options import (
    AsJson,
    Column,
    Follow,
    FromFile,
    FromParquet,
    Limit,
    OfDataset,
    OfModel,
    SampleIds,
    Subjects,
    SubjectsFrom,
    Timeout,
    UnknownSubjects,
    Wait,
)
from lethe.command_line.screen import Screen, counted, details, table, word
from lethe.command_line.session import connect
from lethe.schemas.common import Objective
from lethe.schemas.jobs import AccuracyChange
from lethe.schemas.requests import (
    DecisionKind,
    DeletionRequest,
    OfUnknown,
    RequestOrder,
    RequestStatus,
    Resolved,
    Rows,
    Target,
)

SOON = timedelta(minutes=1)
RequestId = Annotated[UUID, typer.Argument(help="The request.", show_default=False)]
Aim = Annotated[
    Objective,
    typer.Option("--objective", help="Behave as if never trained on them, or lose the concept."),
]
Exact = Annotated[
    bool, typer.Option("--exact", help="Only a retraining without the samples will do.")
]
Urgent = Annotated[
    bool,
    typer.Option("--urgent", help="Do not wait for other requests to share a job."),
]


def register(app: typer.Typer) -> None:
    """Add what is done with requests to the command line."""
    for command in (forget, status, cancel, decide, shred):
        app.command()(command)


def forget(
    context: typer.Context,
    ids: SampleIds = None,
    model: OfModel = None,
    dataset: OfDataset = None,
    file: FromFile = None,
    parquet: FromParquet = None,
    column: Column = "sample_id",
    subject: Subjects = None,
    subjects_from: SubjectsFrom = None,
    unknown_subjects: UnknownSubjects = OfUnknown.REFUSE,
    objective: Aim = Objective.UNTRAIN_SAMPLES,
    exact: Exact = False,
    urgent: Urgent = False,
    reason: Annotated[str | None, typer.Option(help="Why, for the file.")] = None,
    subject_ref: Annotated[
        str | None, typer.Option(help="Your reference to the person or ticket.")
    ] = None,
    received_at: Annotated[
        str | None,
        typer.Option(
            metavar="DATE",
            help="When the person asked: the legal month starts there. Now unless given; UTC "
            "unless it has a time zone, or --time-zone is given.",
        ),
    ] = None,
    time_zone: Annotated[
        str | None,
        typer.Option(
            metavar="ZONE",
            help="The person's, such as Europe/Berlin: it decides on which day the month ends. "
            "That of --received-at unless given.",
        ),
    ] = None,
    idempotency_key: Annotated[
        str | None,
        typer.Option(help="Send the same one again to be sure that it is one request."),
    ] = None,
    wait: Wait = False,
    follow: Follow = False,
    timeout: Timeout = None,
    as_json: AsJson = False,
) -> None:
    """Ask that samples be forgotten.

    [bold]lethe forget --model cifar10-cnn --from ids.txt --reason "GDPR Article 17" --follow[/bold]

    [bold]lethe forget --dataset gait --subjects-from people.txt --follow[/bold]
    """
    screen = Screen(as_json)
    named, people = sample_ids.gather_named(
        ids, file, parquet, column, subjects=subject, subjects_from=subjects_from
    )
    one_of(model, dataset)
    who = f"model {model}" if model else f"every model of dataset {dataset}"
    things = (("sample", named), ("subject", people))
    what = [counted(len(set(each)), thing) for thing, each in things if each]
    screen.say(f"Asking {who} to forget {' and '.join(what)}.")
    with connect(context) as lethe:
        made = lethe.forget(
            named,
            model=model,
            dataset=dataset,
            subjects=people,
            unknown_subjects=unknown_subjects if people else None,
            objective=objective,
            exact=exact,
            urgent=urgent or None,
            subject_ref=subject_ref,
            received_at=_instant(received_at, time_zone),
            time_zone=time_zone,
            reason=reason,
            idempotency_key=idempotency_key,
        )
        told = {
            "idempotency_key": made.idempotency_key,
            "was_submitted_before": made.was_submitted_before,
        }
        if made.was_submitted_before:
            screen.say("It was submitted before, with the same key and content.")
        if made.planned_for and made.planned_for > datetime.now(UTC) + SOON:
            screen.say(
                f"It waits for others to share a job, until {_at_latest(made.planned_for)}. To "
                "have it begin at once, cancel it and ask again with --urgent."
            )
        if not (wait or follow):
            after = f"Follow it with: lethe status {made.id} --follow"
            screen.show(made.model_dump() | told, picture(made), after)
            return
        ended = settled(lethe, made, screen, timeout=timeout, watched=follow)
    screen.show(ended.model_dump() | told, picture(ended))
    raise typer.Exit(outcome(ended))


def status(
    context: typer.Context,
    request_id: Annotated[
        UUID | None,
        typer.Argument(help="One request; without it, the newest ones.", show_default=False),
    ] = None,
    follow: Follow = False,
    timeout: Timeout = None,
    only: Annotated[
        RequestStatus | None, typer.Option("--status", help="List those of this status.")
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", metavar="NAME", help="List those of a model.")
    ] = None,
    order: Annotated[
        RequestOrder, typer.Option(help="List the newest first, or what is due first.")
    ] = RequestOrder.NEWEST,
    limit: Limit = 20,
    as_json: AsJson = False,
) -> None:
    """Show how far a deletion request is, or list requests."""
    screen = Screen(as_json)
    with connect(context) as lethe:
        if request_id is None:
            listed = lethe.list_requests(status=only, model=model, order=order)
            found = list(islice(listed, limit))
            screen.show(found, listing(found))
            return
        read = lethe.read_request(request_id)
        if follow:
            read = settled(lethe, read, screen, timeout=timeout)
    screen.show(read, picture(read))
    raise typer.Exit(outcome(read) if follow else Exit.DONE)


def cancel(context: typer.Context, request_id: RequestId, as_json: AsJson = False) -> None:
    """Take a request back before it is answered. What is forgotten already stays forgotten."""
    with connect(context) as lethe:
        read = lethe.cancel_request(request_id)
    Screen(as_json).show(read, picture(read))


def decide(
    context: typer.Context,
    request_id: RequestId,
    decision: Annotated[
        DecisionKind,
        typer.Argument(
            help="accept: serve the candidate in spite of its verdict; if other requests have "
            "overtaken it, it is made anew first. retry: try again. refuse: the samples stay.",
            show_default=False,
        ),
    ],
    ground: Annotated[str, typer.Option(help="Why. Stored with the request.")],
    as_json: AsJson = False,
) -> None:
    """Decide about a request that needs review."""
    with connect(context) as lethe:
        read = lethe.decide_request(request_id, decision, ground)
    Screen(as_json).show(read, picture(read))


def shred(
    context: typer.Context,
    request_id: RequestId,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Destroy what links a request to a person. There is no way back."""
    if not yes:
        typer.confirm(f"Destroy what links request {request_id} to a person?", abort=True, err=True)
    with connect(context) as lethe:
        read = lethe.shred_request(request_id)
    Screen(as_json).show(read, picture(read))


def outcome(request: DeletionRequest) -> Exit:
    """The exit status after a request was waited for."""
    good = request.status is RequestStatus.COMPLETED
    return Exit.DONE if good else Exit.NOT_A_SUCCESS


def listing(requests: list[DeletionRequest]) -> Table:
    """A row for each request."""
    columns = ("Request", "Status", "Samples", "Models", "Received", "Due")
    return table(
        columns,
        (
            (
                request.id,
                word(request.status),
                request.samples,
                ", ".join(target.model for target in request.targets),
                request.received_at,
                request.due_at,
            )
            for request in requests
        ),
    )


def picture(request: DeletionRequest) -> Group:
    """A request as people see it."""
    late = "  (overdue)" if request.overdue_at else ""
    repeated = f" and {counted(request.duplicates, 'repetition')}" if request.duplicates else ""
    facts = details(
        [
            ("request", request.id),
            ("status", word(request.status)),
            ("dataset", request.dataset),
            ("samples", f"{request.samples}{repeated}"),
            *resolved(request.subjects, request.resolved),
            ("objective", f"{request.objective}{', by retraining' if request.exact else ''}"),
            ("urgent", "yes" if request.urgent else None),
            ("reference", request.subject_ref),
            ("reason", request.reason),
            ("received", request.received_at),
            ("due", f"{request.due_at:%Y-%m-%d}{late}"),
            ("starts", _at_latest(request.planned_for)),
            ("finished", request.finished_at),
            ("shredded", request.shredded_at),
        ]
    )
    rows = [_rows(request.rows)] if request.rows else []
    return Group(facts, *rows, *(_target(target) for target in request.targets))


def resolved(subjects: int, found: Resolved | None) -> list[tuple[str, object]]:
    """What was found by subjects, where any was named."""
    if found is None:
        return []
    where = f"{counted(found.datasets, 'dataset')}, {counted(found.models, 'model')}"
    return [
        ("subjects", subjects),
        ("resolved", f"{counted(found.samples, 'sample')} in {where}"),
        ("not found", found.meaning),
    ]


def _rows(rows: Rows) -> Table:
    return details(
        [
            ("", ""),
            ("rows in files", word(rows.status)),
            ("rows left", rows.left),
            ("job", rows.job_id),
            ("failure", rows.failure and f"{rows.failure.kind}: {rows.failure.reason}"),
            ("meaning", rows.meaning),
        ]
    )


def _target(target: Target) -> Table:
    result = target.result
    pairs: list[tuple[str, object]] = [
        ("", ""),
        ("model", target.model),
        ("status", word(target.status)),
        ("job", target.job_id),
        ("starts", _at_latest(target.planned_for)),
        ("accepted", target.accepted_job_id and f"of job {target.accepted_job_id}, made anew"),
        ("forgotten before", target.already_forgotten or None),
        ("never trained on", target.not_trained_on or None),
        ("no longer there", former(target.former)),
        ("failure", target.failure and f"{target.failure.kind}: {target.failure.reason}"),
    ]
    if result is not None:
        pairs += [
            ("new version", f"{result.version} ({result.mode})"),
            ("verdict", word(result.verdict)),
            ("because", result.verdict_reason),
            ("meaning", result.meaning),
            *_remarks(result.accuracy),
        ]
    return details(pairs)


def former(count: int) -> str | None:
    """What samples that left the dataset, though the model knows them, mean for a request."""
    return f"{count}: this waits for a version trained on a later state" if count else None


def _at_latest(planned_for: datetime | None) -> str | None:
    return f"{planned_for:%Y-%m-%d %H:%M} UTC at the latest" if planned_for else None


def _remarks(accuracy: AccuracyChange | None) -> list[tuple[str, object]]:
    return [("accuracy", remark) for remark in accuracy.remarks] if accuracy else []


def one_of(model: str | None, dataset: str | None) -> None:
    """Raises BadParameter unless one of the two is named."""
    if (model is None) == (dataset is None):
        raise typer.BadParameter("Say who is to forget: one of --model and --dataset.")


def _instant(given: str | None, zone: str | None) -> datetime | None:
    if given is None:
        return None
    try:
        at = datetime.fromisoformat(given)
        if zone and not at.tzinfo:
            at = at.replace(tzinfo=_zone(zone))
    except ValueError:
        raise typer.BadParameter(
            "--received-at takes a date as in 2026-01-31, or 2026-01-31T09:30+01:00."
        ) from None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def _zone(name: str) -> tzinfo:
    """A zone by its name, or by its offset from UTC."""
    if name[:1] in "+-":
        return cast("tzinfo", datetime.fromisoformat(f"2000-01-01T00:00{name}").tzinfo)
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, OSError) as error:
        raise typer.BadParameter(
            "--time-zone takes a name such as Europe/Berlin, or an offset such as +01:00."
        ) from error
