"""The main job on the screen: a trained model forgets fifty images (`make demo`).

Starts the whole stack on this machine, speaks to it over HTTP alone, and stops it again. Exits 0
only when the deletion request reached `completed`.
"""

import os
import signal
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pyarrow.parquet as pq
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from devstack import local
from devstack.demo import digits

FORGOTTEN = 50
FOLDER = local.STATE / "data"

console = Console()


def main() -> int:
    """Run the demo; the exit status of the process."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        with console.status("Training a small CNN on 1,000 handwritten digits …"):
            digits.prepare(FOLDER)
        console.print(f"Dataset and trained model written to {os.path.relpath(FOLDER)}.")
        with ExitStack() as cleanup:
            with console.status("Starting Postgres, Valkey, the API and the worker …"):
                home = cleanup.enter_context(local.stack(local.STATE, port=local.PORT))
            return show(home)
    except KeyboardInterrupt:
        console.print("Interrupted; everything that was started is stopped.")
        return 130


def show(home: local.Stack) -> int:
    """Register, request, follow, and print what came of it."""
    console.print(f"The API listens at {home.url}.")
    client = local.Client(home)
    with client.http:
        register_dataset(client)
        model = register_model(client)
        request = follow(client, submit(client, model))
        if request["targets"][0]["result"] is None:
            failures = [target["failure"] for target in request["targets"]]
            console.print(f"[red]The request ended {request['status']}:[/]", failures)
            return 1
        job = client.get(f"/v1/jobs/{request['targets'][0]['job_id']}")
    console.print(scores(job))
    console.print(tests(job))
    report(home, model, request, job)
    return 0 if request["status"] == "completed" else 1


def register_dataset(client: local.Client) -> None:
    body = {
        "name": "digits",
        "uri": (FOLDER / digits.DATASET).as_uri(),
        "columns": {
            "sample_id": "sample_id", "input": "image", "label": "label", "split": "split",
        },
    }  # fmt: skip
    with console.status("Indexing the dataset …"):
        dataset = _ready(client, client.post("/v1/datasets", body))
    counts = ", ".join(f"{n} {split}" for split, n in dataset["report"]["samples"].items())
    console.print(f"Dataset [bold]digits[/] is indexed: {counts} samples.")


def register_model(client: local.Client) -> str:
    """Register the trained model under a name that is new in every run; that name."""
    name = f"digits-cnn-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    body = {
        "name": name,
        "dataset": "digits",
        "weights": (FOLDER / digits.WEIGHTS).as_uri(),
        "architecture": {"kind": "python", "factory": "devstack.demo.digits:cnn"},
        "head": "head",
        "preprocessing": {"mode": "L"},
    }
    with console.status("Checking the model …"):
        model = _ready(client, client.post("/v1/models", body))
    accuracy = model["champion"]["figures"]["holdout_accuracy"]
    console.print(f"Model [bold]{name}[/] is registered: hold-out accuracy {accuracy:.1%}.")
    return name


def submit(client: local.Client, model: str) -> str:
    """Ask for the deletion of the first training images; where to follow it."""
    train = pq.read_table(FOLDER / digits.DATASET, filters=[("split", "=", "train")])
    body = {"model": model, "sample_ids": train["sample_id"].to_pylist()[:FORGOTTEN]}
    where = client.post("/v1/deletion-requests", body, **{"Idempotency-Key": str(uuid4())})
    console.print(f"Deletion request for {FORGOTTEN} images accepted: {where}")
    return where


def follow(client: local.Client, where: str) -> dict[str, Any]:
    """Follow the request with a progress bar until it is no longer open."""
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), console=console
    )
    with bar:
        task = bar.add_task("pending", total=1.0)

        def closed(row: Mapping[str, Any]) -> bool:
            job_id = row["targets"][0]["job_id"]
            job = client.get(f"/v1/jobs/{job_id}") if job_id else {}
            phase = f"{row['status']}: {job['phase']}" if job.get("phase") else row["status"]
            bar.update(task, completed=job.get("progress", 0.0), description=phase)
            return row["status"] not in local.OPEN

        return client.wait(where, closed)


def scores(job: Mapping[str, Any]) -> Table:
    """What was measured before and after, side by side."""
    table = Table(title=f"{FORGOTTEN} images forgotten in {job['duration_seconds']:.1f} s")
    for heading in ("", "before", "after"):
        table.add_column(heading, justify="left" if not heading else "right")
    rows = {
        "alignment (DA) of forget samples": "da_forget",
        "alignment (DA) of hold-out samples": "da_holdout",
        "gap between them": "da_gap",
        "forget accuracy": "forget_accuracy",
        "retain accuracy": "retain_accuracy",
        "hold-out accuracy": "holdout_accuracy",
    }
    moments = job["before"], job["after"]
    for label, field in rows.items():
        sign = "+" if field == "da_gap" else ""
        table.add_row(label, *(f"{moment[field]:{sign}.3f}" for moment in moments))
    intervals = (rf"\[{m['da_gap_low']:+.3f}, {m['da_gap_high']:+.3f}]" for m in moments)
    table.add_row("95 % interval of the gap", *intervals)
    return table


def tests(job: Mapping[str, Any]) -> Table:
    """Every test of the audit, on a line of its own."""
    table = Table(title="the audit: can these images be told from images never trained on?")
    for heading in ("", "before", "after", "interval", "expected", ""):
        table.add_column(heading, justify="left" if not heading else "right")
    audit = job["audit"]
    before = {test["name"]: f"{test['value']:+.3f}" for test in audit["before"]}
    for test in (*audit["after"], *audit["guards"]):
        bounds = ("" if end is None else f"{end:+.3f}" for end in (test["low"], test["high"]))
        table.add_row(
            test["name"].replace("_", " "),
            before.get(test["name"], ""),
            f"{test['value']:+.3f}",
            rf"\[{', '.join(bounds)}]",
            f"{test['expected']:z.2f}",
            "ok" if test["passed"] else "[red]failed[/]",
        )
    return table


def report(
    home: local.Stack, model: str, request: Mapping[str, Any], job: Mapping[str, Any]
) -> None:
    """The verdict, the new version, and where to look."""
    result = request["targets"][0]["result"]
    console.print(f"Verdict: [bold]{result['verdict']}[/] ({result['mode']})")
    console.print(result["meaning"])
    console.print(f"Why: {result['verdict_reason']}")
    console.print(f"New version: {model} v{result['version']}")
    console.print(f"SHA-256: {result['weights_sha256']}")
    console.print("Look at it with `make up`, which serves the same database:")
    for path in (
        f"/v1/deletion-requests/{request['id']}",
        f"/v1/jobs/{job['id']}/alignment",
        f"/v1/audit/events?subject_id={request['id']}",
        "/docs",
    ):
        console.print(f"  http://127.0.0.1:{local.PORT}{path}", soft_wrap=True, highlight=False)
    console.print(f"The key for all but the docs is in {home.state / 'admin-key'}.")


def _ready(client: local.Client, where: str) -> dict[str, Any]:
    row = client.settled(where)
    if row["status"] != "ready":
        raise RuntimeError(f"{row['name']} is {row['status']}: {row['failure']}")
    return row


if __name__ == "__main__":
    sys.exit(main())
