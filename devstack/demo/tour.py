"""What the demo does: start the stack, register, ask, follow, and show what came of it.

Everything it knows of the result it was told over HTTP.
"""

import argparse
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from devstack import local
from devstack.demo import case, picture, words
from devstack.demo.case import Case
from devstack.startup import StackError, writable

RECIPE = "worker.networks.recipes:train"
"""How the network would be retrained, should its job come to that: the last step of its policy."""

CERTIFIED_WITHIN_S = 60

console = Console(highlight=False)


def run(arguments: Sequence[str]) -> int:
    """Run it all; 0 if the deletion request was completed, else 1.

    Raises:
        StackError: the stack cannot run, refuses what it is given, or does not answer.
    """
    parser = argparse.ArgumentParser(prog="python -m devstack.demo", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="of records, labels and training")
    seed = parser.parse_args(arguments).seed
    console.print(words.INTRODUCTION)
    with ExitStack() as cleanup:
        with console.status("Starting Postgres, Valkey, the API and the worker …"):
            home = cleanup.enter_context(local.stack(local.STATE, port=local.PORT))
        try:
            return show(home, seed)
        except (TimeoutError, httpx2.HTTPError) as error:
            raise StackError(
                f"The service did not answer as it should: {error}\nThe logs in "
                f"{home.state / 'logs'} may say why. Run the demo again."
            ) from error


def show(home: local.Stack, seed: int) -> int:
    """Train, register, ask, follow and report."""
    training = console.status("Training the network until it knows the records by heart …")
    with writable(home.state), training:
        files = case.prepare(home.state / "data" / f"demo-{seed}", seed=seed)
    client = local.Client(home)
    with client.http:
        dataset, model = register(client, files, seed)
        console.print(words.known(dataset, model))
        where = ask(client, model["name"], files)
        console.print(words.asked(files, where))
        request = follow(home, client, where)
        target = request["targets"][0]
        if target["result"] is None:
            console.print(words.without_result(request))
            return 1
        job = client.get(f"/v1/jobs/{target['job_id']}")
        console.print(words.table(job))
        console.print(words.verdict(request, job))
        if request["status"] != "completed":
            console.print(words.how_to_go_on(home.state))
            return 1
        kept = keep(home.state, client, files, request, job)
    console.print(words.where_it_lies(kept), soft_wrap=True)
    console.print(words.how_to_go_on(home.state))
    return 0


def register(client: local.Client, files: Case, seed: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Make the records and the trained network known, the latter under a name that is new in every
    run; both as the API tells them.

    Raises:
        StackError: one of them cannot be used.
    """
    dataset = {
        "name": f"demo-digits-{seed}",
        "uri": files.records.as_uri(),
        "kind": "image",
        "columns": {
            "sample_id": "sample_id", "input": "image", "label": "label", "split": "split",
        },
    }  # fmt: skip
    model = {
        "name": f"demo-{datetime.now(UTC):%Y%m%d-%H%M%S}",
        "dataset": dataset["name"],
        "weights": files.weights.as_uri(),
        "architecture": {
            "kind": "python",
            "factory": "devstack.demo.digits:cnn",
            "arguments": {"width": case.WIDTH},
        },
        "head": "head",
        "preprocessing": {"mode": "L"},
        "recipe": RECIPE,
        "policy": {"mode": "approximate"},  # a network this small is retrained as fast
    }
    with console.status("Registering records and network …"):
        return _ready(client, "/v1/datasets", dataset), _ready(client, "/v1/models", model)


def _ready(client: local.Client, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
    row = client.settled(client.post(path, body))
    if row["status"] != "ready":
        raise StackError(f"{row['name']} is {row['status']}: {row['failure']}")
    return row


def ask(client: local.Client, model: str, files: Case, **more: object) -> str:
    """Ask for the person's records to be forgotten; where to follow it.

    Args:
        more: fields of the request, such as `exact`.
    """
    body = {"model": model, "sample_ids": list(files.person), "urgent": True, **more}
    return client.post("/v1/deletion-requests", body, **{"Idempotency-Key": str(uuid4())})


def follow(home: local.Stack, client: local.Client, where: str) -> dict[str, Any]:
    """Follow the request with a progress bar until it is no longer open."""
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), console=console
    )
    with bar:
        task = bar.add_task("waiting", total=1.0)

        def closed(row: Mapping[str, Any]) -> bool:
            home.require_alive()
            job_id = row["targets"][0]["job_id"]
            job = client.get(f"/v1/jobs/{job_id}") if job_id else {}
            done = 1.0 if row["status"] == "completed" else job.get("progress", 0.0)
            bar.update(task, completed=done, description=job.get("phase") or row["status"])
            return row["status"] not in local.OPEN

        return client.wait(where, closed, timeout_s=1800)  # a busy machine takes long to retrain


def keep(
    state: Path,
    client: local.Client,
    files: Case,
    request: Mapping[str, Any],
    job: Mapping[str, Any],
) -> dict[str, Path]:
    """Write the picture and the certificate of a completed request; the paths, by what they are.

    Raises:
        StackError: they cannot be written, or the certificate does not come.
    """
    folder = state / "demo" / job["model"]
    kept = {
        name: folder / file
        for name, file in (
            ("picture", "before-and-after.png"),
            ("page", "certificate.html"),
            ("certificate", "certificate.json"),
        )
    }
    with writable(state), console.status("Drawing the picture, fetching the certificate …"):
        folder.mkdir(parents=True, exist_ok=True)
        weights = files.weights.read_bytes(), new_weights(client, request)
        before, after = map(files.sureness, weights)
        picture.draw(kept["picture"], before, after, title=words.title(job))
        path = f"/v1/deletion-requests/{request['id']}/certificate"
        kept["certificate"].write_text(certificate(client, path, "application/json"))
        kept["page"].write_text(certificate(client, path, "text/html"))
    return kept


def new_weights(client: local.Client, request: Mapping[str, Any]) -> bytes:
    """The weights of the version that a completed request led to, as safetensors."""
    target = request["targets"][0]
    path = f"/v1/models/{target['model']}/versions/{target['result']['version']}/weights"
    return bytes(client.http.get(path).raise_for_status().content)


def certificate(client: local.Client, path: str, media_type: str) -> str:
    """The certificate, once it is issued: that takes until the log's next signed checkpoint.

    Raises:
        StackError: it is not issued within a minute.
    """
    deadline = time.monotonic() + CERTIFIED_WITHIN_S
    while time.monotonic() < deadline:
        response = client.http.get(path, headers={"Accept": media_type})
        if response.is_success:
            return str(response.text)
        time.sleep(0.2)
    raise StackError(f"{path} was not issued within {CERTIFIED_WITHIN_S} s: {response.text}")
