"""The main job on the screen: a trained model forgets fifty images (`make demo`).

Starts the whole house on this machine, speaks to it over HTTP alone, and stops it again. Exits 0
only when the deletion request reached `completed`.
"""

import signal
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, nullcontext
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import httpx2
import pyarrow.parquet as pq
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

import local
from demo import digits

FORGOTTEN = 50
TIMEOUT_S = 300
FOLDER = local.STATE / "data"

console = Console()


def main() -> int:
    """Run the demo; the exit status of the process."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        with console.status("Training a small CNN on 1,000 handwritten digits …"):
            digits.prepare(FOLDER)
        console.print(f"Dataset and trained model written to {FOLDER}.")
        with ExitStack() as stack:
            with console.status("Starting Postgres, Valkey, the API and the worker …"):
                home = stack.enter_context(local.house(local.STATE, port=local.PORT))
            return show(home)
    except KeyboardInterrupt:
        console.print("Interrupted; everything that was started is stopped.")
        return 130


def show(home: local.House) -> int:
    """Register, request, follow, and print what came of it."""
    console.print(f"The API listens at {home.url}.")
    with httpx2.Client(base_url=home.url, headers=home.headers, timeout=30) as client:
        register_dataset(client)
        model = register_model(client)
        request = submit(client, model)
        request = follow_job(client, request)
        if request["status"] != "completed":
            console.print(f"[red]The request ended {request['status']}:[/] {request}")
            return 1
        job = _get(client, f"/v1/jobs/{request['targets'][0]['job_id']}")
        console.print(scores(job))
        report(home, model, request, job)
    return 0


def register_dataset(client: httpx2.Client) -> None:
    body = {
        "name": "digits",
        "uri": (FOLDER / digits.DATASET).as_uri(),
        "columns": {
            "sample_id": "sample_id", "input": "image", "label": "label", "split": "split",
        },
    }  # fmt: skip
    where = _post(client, "/v1/datasets", body)
    dataset = _wait(client, where, lambda row: row["status"] != "pending", "Indexing the dataset")
    _require(dataset, "ready")
    counts = ", ".join(f"{n} {split}" for split, n in dataset["report"]["samples"].items())
    console.print(f"Dataset [bold]digits[/] is indexed: {counts} samples.")


def register_model(client: httpx2.Client) -> str:
    name = f"digits-cnn-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    body = {
        "name": name,
        "dataset": "digits",
        "weights": (FOLDER / digits.WEIGHTS).as_uri(),
        "architecture": {"kind": "python", "factory": "demo.digits:cnn"},
        "head": "head",
        "preprocessing": {"mode": "L"},
    }
    where = _post(client, "/v1/models", body)
    model = _wait(client, where, lambda row: row["status"] != "pending", "Checking the model")
    _require(model, "ready")
    accuracy = model["champion"]["figures"]["holdout_accuracy"]
    console.print(f"Model [bold]{name}[/] is registered: hold-out accuracy {accuracy:.1%}.")
    return name


def submit(client: httpx2.Client, model: str) -> dict[str, Any]:
    train = pq.read_table(FOLDER / digits.DATASET, filters=[("split", "=", "train")])
    body = {"model": model, "sample_ids": train["sample_id"].to_pylist()[:FORGOTTEN]}
    where = _post(client, "/v1/deletion-requests", body, {"Idempotency-Key": str(uuid4())})
    console.print(f"Deletion request for {FORGOTTEN} images accepted: {where}")
    return _get(client, where)


def follow_job(client: httpx2.Client, request: Mapping[str, Any]) -> dict[str, Any]:
    """Follow the request with a progress bar until it is no longer open."""
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), console=console
    )
    with bar:
        task = bar.add_task("pending", total=1.0)

        def closed(row: Mapping[str, Any]) -> bool:
            job_id = row["targets"][0]["job_id"]
            job = _get(client, f"/v1/jobs/{job_id}") if job_id else {}
            phase = f"{row['status']}: {job['phase']}" if job.get("phase") else row["status"]
            bar.update(task, completed=job.get("progress", 0.0), description=phase)
            return row["status"] not in ("pending", "scheduled", "running")

        return _wait(client, f"/v1/deletion-requests/{request['id']}", closed)


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
    before, after = job["before"], job["after"]
    for label, field in rows.items():
        table.add_row(label, *(f"{moment[field]:+.3f}" if field == "da_gap"
                               else f"{moment[field]:.3f}" for moment in (before, after)))  # fmt: skip
    interval = (f"[{m['da_gap_low']:+.3f}, {m['da_gap_high']:+.3f}]" for m in (before, after))
    table.add_row("95 % interval of the gap", *(text.replace("[", "\\[") for text in interval))
    return table


def report(
    home: local.House, model: str, request: Mapping[str, Any], job: Mapping[str, Any]
) -> None:
    """The verdict, the new version, and where to look."""
    result = request["targets"][0]["result"]
    console.print(f"Verdict: {result['verdict'] or 'audit not implemented yet'}")
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


def _post(
    client: httpx2.Client,
    path: str,
    body: Mapping[str, Any],
    headers: Mapping[str, str] | None = None,
) -> str:
    """Send a request and return where to follow it; a refusal ends the demo, in full."""
    response = client.post(path, json=body, headers=headers)
    if response.status_code != 202:
        raise SystemExit(f"POST {path} was refused: {response.text}")
    return str(response.headers["location"])


def _get(client: httpx2.Client, path: str) -> dict[str, Any]:
    body: dict[str, Any] = client.get(path).raise_for_status().json()
    return body


def _wait(
    client: httpx2.Client, path: str, done: Callable[[dict[str, Any]], bool], what: str = ""
) -> dict[str, Any]:
    """Poll until done. Raises SystemExit when that takes too long."""
    deadline = time.monotonic() + TIMEOUT_S
    with console.status(f"{what} …") if what else nullcontext():
        while time.monotonic() < deadline:
            row = _get(client, path)
            if done(row):
                return row
            time.sleep(0.2)
    raise SystemExit(f"{path} was not done within {TIMEOUT_S} s.")


def _require(row: Mapping[str, Any], status: str) -> None:
    if row["status"] != status:
        raise SystemExit(f"{row['name']} is {row['status']}: {row['failure']}")


if __name__ == "__main__":
    sys.exit(main())
