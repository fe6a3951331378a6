"""What the demo says, for people who have never seen Lethe."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Table

from devstack.demo.case import PERSON, WRONG, Case

Row = Mapping[str, Any]

INTRODUCTION = (
    "[bold]A model forgets one person's records.[/]\n"
    f"The data are 1,797 handwritten digits, and {WRONG:.0%} of their labels are wrong. A wrong "
    "label can only be learned by heart, and the network is trained until it knows nearly all of "
    "them."
)


def known(dataset: Row, model: Row) -> str:
    """What was registered."""
    figures = model["champion"]["figures"]
    return (
        f"The network was trained on {dataset['report']['samples']['train']:,} records. It gives "
        f"{figures['retain_accuracy']:.0%} of them the label on file, and "
        f"{figures['holdout_accuracy']:.0%} of records that it never saw."
    )


def asked(case: Case, where: str) -> str:
    """What the request was."""
    return (
        f"One person asks for {len(case.person)} records to be forgotten: "
        f"POST {where.rpartition('/')[0]}"
    )


def table(job: Row) -> Table:
    """What changed, in eight rows at most."""
    before, after = ({**job[moment]["figures"], **job[moment]} for moment in ("before", "after"))
    shown = Table(title="What changed", title_justify="left", min_width=70)
    for heading in ("", "before", "after"):
        shown.add_column(heading, justify="right" if heading else "left")
    for label, field in {
        f"the {PERSON} records: given the label on file": "forget_accuracy",
        "records it never saw: given the label on file": "holdout_accuracy_same_classes",
        "one of each is told apart (50% is guessing)": "membership_auc",
        "records it keeps: given the label on file": "retain_accuracy",
        "test records: given the label on file": "test_accuracy",
    }.items():
        shown.add_row(label, *(f"{moment[field]:.0%}" for moment in (before, after)))
    audit = job["audit"]
    tested = audit["before"], audit["after"]
    shown.add_row("tests that cannot tell the two apart", *map(_passed, tested))
    shown.add_row("the audit's verdict", _would(audit["before"]), f"[bold]{audit['verdict']}[/]")
    return shown


def _passed(tests: list[Row]) -> str:
    return f"{sum(test['passed'] for test in tests)} of {len(tests)}"


def _would(before: list[Row]) -> str:
    """What the version before would have been given."""
    return "pass" if all(test["passed"] for test in before) else "fail"


def verdict(request: Row, job: Row) -> str:
    """The verdict in one sentence, and how the version came to be."""
    result = request["targets"][0]["result"]
    return f"[bold]Verdict: {result['verdict']}.[/] {result['meaning']}\n{_how(request, job)}"


def _how(request: Row, job: Row) -> str:
    made = "The network was changed, not retrained"
    if job["mode"] == "exact":
        made = "The network was retrained without these records"
    rounds = len(job["rounds"])
    tried = "at the first try" if rounds == 1 else f"after {rounds} tries, as its policy says"
    if request["status"] == "needs_review":
        tried += "; the best version waits for a person to decide (needs_review)"
    return f"{made} ({job['mode']}), {tried}, in {job['duration_seconds']:.0f} s."


def without_result(request: Row) -> str:
    """Why there is nothing to show."""
    failures = [target["failure"] for target in request["targets"]]
    return f"[red]The request ended {request['status']}:[/] {failures}"


def title(job: Row) -> str:
    """What the picture shows: said only if the audit found it."""
    claim = "now they look like records it never saw."
    if job["verdict"] != "pass":
        claim = "the audit can still tell them from records it never saw."
    return f"The network knew the labels of {PERSON} records by heart;\n{claim}"


def where_it_lies(kept: Mapping[str, Path]) -> str:
    """Where the files are."""
    names = {
        "picture": "The picture of it",
        "page": "The certificate, to read or print",
        "certificate": "The same, signed, to verify",
    }
    return "\n".join(f"{names[what] + ':':<35}{_near(path)}" for what, path in kept.items())


def how_to_go_on(state: Path) -> str:
    """What to do next."""
    return (
        "Go on with `make up`, which serves the same database: http://127.0.0.1:8321/docs; the "
        f"key is in {_near(state / 'admin-key')}."
    )


def _near(path: Path) -> Path:
    """The path as seen from here, if it lies below."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
