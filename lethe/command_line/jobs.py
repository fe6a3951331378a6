"""`lethe job`: list, show, retry."""

from itertools import islice
from typing import Annotated
from uuid import UUID

import typer
from rich.console import Group
from rich.table import Table

from lethe.command_line.exits import Exit
from lethe.command_line.following import settled
from lethe.command_line.options import AsJson, Follow, Limit, Timeout
from lethe.command_line.screen import Screen, details, found, table, word
from lethe.command_line.session import connect
from lethe.schemas.common import JobStatus
from lethe.schemas.jobs import Audit, Job, JobKind

app = typer.Typer(no_args_is_help=True, help="Pieces of work, and what they measured.")

JobId = Annotated[UUID, typer.Argument(help="The job.", show_default=False)]


@app.command("list")
def show_all(
    context: typer.Context,
    only: Annotated[
        JobStatus | None, typer.Option("--status", help="Those of this status.")
    ] = None,
    kind: Annotated[JobKind | None, typer.Option(help="Those of this kind.")] = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", metavar="NAME", help="Those of a model.")
    ] = None,
    limit: Limit = 20,
    as_json: AsJson = False,
) -> None:
    """List jobs, the newest first."""
    with connect(context) as lethe:
        found = list(islice(lethe.list_jobs(status=only, kind=kind, model=model), limit))
    columns = ("Job", "Kind", "Status", "Progress", "Model", "Dataset", "Requests", "Created")
    rows = (
        (
            job.id,
            job.kind,
            word(job.status),
            f"{job.progress:.0%}",
            job.model,
            job.dataset,
            job.requests,
            job.created_at,
        )
        for job in found
    )
    Screen(as_json).show(found, table(columns, rows))


@app.command()
def show(
    context: typer.Context,
    job_id: JobId,
    follow: Follow = False,
    timeout: Timeout = None,
    as_json: AsJson = False,
) -> None:
    """Show one job: how it ran, and the tests its verdict rests on."""
    screen = Screen(as_json)
    with connect(context) as lethe:
        job = lethe.read_job(job_id)
        if follow:
            job = settled(lethe, job, screen, timeout=timeout)
    screen.show(job, _picture(job))
    bad = follow and job.status is not JobStatus.COMPLETED
    raise typer.Exit(Exit.NOT_A_SUCCESS if bad else Exit.DONE)


@app.command()
def retry(context: typer.Context, job_id: JobId, as_json: AsJson = False) -> None:
    """Have a failed job tried again, once what made it fail is mended."""
    with connect(context) as lethe:
        job = lethe.retry_job(job_id)
    Screen(as_json).show(job, _picture(job))


def _picture(job: Job) -> Group:
    facts = details(
        [
            ("job", job.id),
            ("kind", job.kind),
            ("status", word(job.status)),
            ("doing", job.phase),
            ("progress", f"{job.progress:.0%}"),
            ("model", job.model),
            ("dataset", job.dataset),
            ("requests", job.requests or None),
            ("started", job.started_at),
            ("finished", job.finished_at),
            ("seconds", job.duration_seconds),
            ("failure", job.failure and f"{job.failure.kind}: {job.failure.reason}"),
            ("from version", job.base_version and job.base_version.number),
            ("to version", job.new_version and job.new_version.number),
            ("mode", job.mode and f"{job.mode}: {job.mode_reason or ''}"),
            ("verdict", job.verdict and word(job.verdict)),
            ("meaning", job.audit and job.audit.meaning),
            *(("accuracy", remark) for remark in (job.accuracy.remarks if job.accuracy else ())),
        ]
    )
    return Group(facts, *([_tests(job.audit)] if job.audit else []))


def _tests(audit: Audit) -> Table:
    """Every test of an audit, before and after."""
    columns = ("When", "Test", "Value", "Low", "High", "p", "Result")
    moments = (("before", audit.before), ("after", audit.after), ("guards", audit.guards))
    return table(
        columns,
        (
            (
                moment,
                test.name,
                test.value,
                test.low,
                test.high,
                test.p_value,
                found(moment, test.passed),
            )
            for moment, tests in moments
            for test in tests
        ),
    )
