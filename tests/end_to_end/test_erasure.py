"""A dataset whose rows are erased once its models have forgotten them."""

import shutil
import time
from types import SimpleNamespace
from uuid import uuid4

import pyarrow.parquet as pq
import pytest

from devstack.demo import digits
from tests.end_to_end.conftest import ids_of


@pytest.fixture(scope="module")
def erasing(client, files):
    """A dataset of its own that erases, with a model, and ids of training samples."""
    name = f"erasing-{uuid4().hex[:8]}"
    path = files / f"{name}.parquet"
    shutil.copy(files / digits.DATASET, path)
    dataset = client.register_dataset(name, path, erase={"parquet": True})
    weights = files / digits.WEIGHTS
    client.register_model(name, weights, dataset=name, policy={"escalation": []})
    return SimpleNamespace(
        name=name, path=path, dataset=dataset, ids=ids_of(client, dataset, "split = 'train'")
    )


def rows_of(erasing):
    return pq.read_table(erasing.path)["sample_id"].to_pylist()


def erased(client, count):
    """Wait for so many jobs that erased."""
    deadline = time.monotonic() + 120
    while True:
        jobs = client.get("/v1/jobs?kind=erase_rows")["items"]
        if sum(job["status"] == "completed" for job in jobs) >= count:
            return jobs
        assert time.monotonic() < deadline, jobs
        time.sleep(0.2)


def test_rows_go_once_they_are_forgotten_and_the_next_job_finds_its_samples(client, erasing):
    before = rows_of(erasing)
    first, second = erasing.ids[:5], erasing.ids[900:905]

    client.forgotten(client.request(erasing.name, first))
    erased(client, 1)
    assert rows_of(erasing) == [name for name in before if name not in first]
    # Its samples stand behind those that went.
    client.forgotten(client.request(erasing.name, second))
    erased(client, 2)

    gone = {*first, *second}
    assert rows_of(erasing) == [name for name in before if name not in gone]
    assert ids_of(client, erasing.dataset, "true") == rows_of(erasing)
    body = {"model": erasing.name, "sample_ids": first}
    again = client.http.post(
        "/v1/deletion-requests", json=body, headers={"Idempotency-Key": str(uuid4())}
    )
    assert again.status_code == 422
    events = client.sql("SELECT data FROM audit_events WHERE event = 'dataset.erased'")
    assert [event["data"]["samples"] for event in events] == [5, 5]
