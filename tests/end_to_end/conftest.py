"""A running stack: the real API, worker and clock as processes, real Postgres, real Valkey."""

import json
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg.rows import dict_row

from devstack import local
from devstack.demo import digits
from tests.broken_models import WIDTH

DONE = ("completed", "needs_review")
"""A job was done to its end; which of the two is for the audit to say, and chance: a job's seed
follows its id."""


class Client(local.Client):
    """Speaks to a stack as a user would, and looks into its database as a user would not."""

    def __init__(self, home: local.Stack) -> None:
        super().__init__(home)
        self.home = home

    def register_dataset(self, name: str, path: Path, **more: object) -> dict[str, Any]:
        columns = {"sample_id": "sample_id", "input": "image", "label": "label", "split": "split"}
        body = {
            "name": name, "uri": path.as_uri(), "kind": "image", "columns": columns, **more,
        }  # fmt: skip
        return self.settled(self.post("/v1/datasets", body))

    def register_model(self, name: str, weights: Path, **more: object) -> dict[str, Any]:
        body = {
            "name": name,
            "dataset": "digits",
            "weights": weights.as_uri(),
            "architecture": {
                "kind": "python",
                "factory": "devstack.demo.digits:cnn",
                "arguments": {"width": WIDTH},
            },
            "head": "head",
            "preprocessing": {"mode": "L"},
            **more,
        }
        return self.settled(self.post("/v1/models", body))

    def request(self, model: str, sample_ids: list[str], **more: object) -> str:
        """Ask for the deletion, at once; where to follow it."""
        body = {"model": model, "sample_ids": sample_ids, "urgent": True, **more}
        return self.post("/v1/deletion-requests", body, **{"Idempotency-Key": str(uuid4())})

    def decide(self, where: str, decision: str) -> dict[str, Any]:
        """Decide what waits for a person; the request as it is then."""
        body = {"decision": decision, "ground": "the residual difference does not matter"}
        response = self.http.post(f"{where}/decision", json=body)
        assert response.status_code == 200, response.text
        row: dict[str, Any] = response.json()
        return row

    def forgotten(self, where: str) -> dict[str, Any]:
        """The request once its samples are forgotten; where the verdict is `fail`, a person
        accepts it."""
        row = self.settled(where)
        if row["status"] == "needs_review":
            row = self.decide(where, "accept")
        assert row["status"] == "completed", row
        return row

    def job_of(self, where: str) -> dict[str, Any]:
        """The job that serves the request, once it is planned."""
        row = self.wait(where, lambda row: row["targets"][0]["job_id"] is not None)
        return self.get(f"/v1/jobs/{row['targets'][0]['job_id']}")

    def versions(self, model: str) -> list[dict[str, Any]]:
        """The newest first."""
        versions: list[dict[str, Any]] = self.get(f"/v1/models/{model}/versions")["items"]
        return versions

    def sql(self, query: str, *values: object) -> list[dict[str, Any]]:
        with psycopg.connect(self.home.owner_url, row_factory=dict_row) as connection:
            return connection.execute(query, values).fetchall()


@pytest.fixture(scope="package")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[local.Stack]:
    state = tmp_path_factory.mktemp("stack")
    with local.stack(
        state,
        LETHE_DATA_ROOTS=json.dumps([str(state / "data"), str(tmp_path_factory.getbasetemp())]),
        LETHE_FACTORIES=json.dumps(
            ["devstack.demo.digits:cnn", "benchmarks.cifar_models:cnn", "tests.broken_models:*"]
        ),
        LETHE_RECIPES=json.dumps(["worker.networks.recipes:train", "tests.broken_models:*"]),
        LETHE_LEASE="PT8S",
        LETHE_HEARTBEAT="PT1S",
        LETHE_SWEEP_INTERVAL="PT1S",
        LETHE_POLL_INTERVAL="PT2S",
        LETHE_LOG_FORMAT="json",
        LETHE_WEBHOOK_DEVELOPMENT="true",
    ) as running:
        yield running


@pytest.fixture(scope="package")
def client(home: local.Stack) -> Iterator[Client]:
    client = Client(home)
    with client.http:
        yield client


@pytest.fixture(scope="package")
def files(home: local.Stack) -> Path:
    """The folder with the digits and the trained model."""
    digits.prepare(home.state / "data", width=WIDTH)
    return home.state / "data"


@pytest.fixture(scope="package")
def dataset(client: Client, files: Path) -> dict[str, Any]:
    row = client.register_dataset("digits", files / digits.DATASET)
    assert row["status"] == "ready", row
    return row


@pytest.fixture(scope="package")
def new_model(client: Client, dataset: dict[str, Any], files: Path) -> Callable[..., str]:
    """Register the trained model under a name that is new; that name."""

    def register(**more: object) -> str:
        name = f"digits-{uuid4().hex[:8]}"
        row = client.register_model(name, files / digits.WEIGHTS, **more)
        assert row["status"] == "ready", row
        return name

    return register


@pytest.fixture(scope="package")
def model(new_model: Callable[..., str]) -> str:
    """A model for all tests that do not mind what others had it forget. One round changes it."""
    return new_model(policy={"escalation": []})


@pytest.fixture(scope="package")
def unnamed(train_ids: list[str]) -> Callable[[int], list[str]]:
    """So many ids of training samples that no test has had that model forget yet."""
    left = iter(train_ids)
    return lambda count: list(islice(left, count))


@pytest.fixture(scope="package")
def train_ids(client: Client, dataset: dict[str, Any]) -> list[str]:
    return ids_of(client, dataset, "split = 'train'")


def ids_of(client: Client, dataset: dict[str, Any], condition: str) -> list[str]:
    """Ids of the dataset's samples that meet a condition, in the order of the files."""
    query = f"SELECT sample_id FROM samples WHERE dataset_id = %s AND {condition} ORDER BY position"
    return [row["sample_id"] for row in client.sql(query, dataset["id"])]
