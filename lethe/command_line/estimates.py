"""`lethe estimate`: what a deletion request would meet."""

import typer
from rich.table import Table

from lethe.command_line import requests, sample_ids
from lethe.command_line.exits import Exit
from lethe.command_line.following import settled
from lethe.command_line.options import (
    AsJson,
    Column,
    FromFile,
    FromParquet,
    OfDataset,
    OfModel,
    SampleIds,
    Subjects,
    SubjectsFrom,
    Timeout,
    UnknownSubjects,
)
from lethe.command_line.requests import Aim, Exact
from lethe.command_line.screen import Screen, details, word
from lethe.command_line.session import connect
from lethe.schemas.common import JobStatus, Objective
from lethe.schemas.requests import EstimateTarget, OfUnknown


def register(app: typer.Typer) -> None:
    """Add `lethe estimate` to the command line."""
    app.command()(estimate)


def estimate(
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
    timeout: Timeout = None,
    as_json: AsJson = False,
) -> None:
    """Find out what a deletion request would meet. Nothing is forgotten."""
    screen = Screen(as_json)
    named, people = sample_ids.gather_named(
        ids, file, parquet, column, subjects=subject, subjects_from=subjects_from
    )
    requests.one_of(model, dataset)
    with connect(context) as lethe:
        asked = lethe.estimate(
            named,
            model=model,
            dataset=dataset,
            subjects=people,
            unknown_subjects=unknown_subjects if people else None,
            objective=objective,
            exact=exact,
        )
        ended = settled(lethe, asked, screen, timeout=timeout)
    found = requests.resolved(ended.subjects, ended.resolved)
    screen.show(ended, *([details(found)] if found else []), *map(_estimated, ended.targets))
    good = ended.status is JobStatus.COMPLETED
    raise typer.Exit(Exit.DONE if good else Exit.NOT_A_SUCCESS)


def _estimated(target: EstimateTarget) -> Table:
    result = target.result
    pairs: list[tuple[str, object]] = [
        ("model", target.model),
        ("status", word(target.status)),
        ("forgotten before", target.already_forgotten),
        ("never trained on", target.not_trained_on),
        ("no longer there", requests.former(target.former)),
        ("failure", target.failure and f"{target.failure.kind}: {target.failure.reason}"),
    ]
    if result is not None:
        seconds = result.predicted_seconds
        remembered = result.memorisation
        pairs += [
            ("samples", result.samples),
            ("mode", result.mode),
            ("because", result.mode_reason),
            ("the audit can tell", result.audit_has_power),
            ("memorisation", remembered and f"{remembered.value:.3g} ({remembered.measure})"),
            ("takes about", None if seconds is None else f"{seconds:.0f} seconds"),
            ("prediction", result.prediction_basis),
            *(
                (f"class {lost.label}", "would lose all of its training samples")
                for lost in result.lost_classes
            ),
            *(("remark", remark) for remark in result.remarks),
        ]
    return details([*pairs, ("", "")])
