"""What an operator or a machine can do to the processes, and what must hold all the same."""

import os
import signal
import time

import psutil
import pytest
import redis

from tests.end_to_end.conftest import DONE


def is_computing(job):
    return job["status"] == "running" and "cycle" in (job["phase"] or "")


@pytest.fixture
def versions(client, model):
    """How many versions the model had before the test."""
    return len(client.versions(model))


@pytest.fixture
def running_job(client, model, unnamed, versions):
    """A request whose job is in the middle of its cycles: path of the request, path of the job."""
    where = client.request(model, unnamed(60))
    path = f"/v1/jobs/{client.job_of(where)['id']}"
    client.wait(path, is_computing)
    return where, path


def test_kill_9_of_the_worker_costs_an_attempt_and_nothing_else(
    client, model, running_job, versions
):
    where, path = running_job
    worker = client.home.processes.pop("worker")
    children = psutil.Process(worker.pid).children(recursive=True)
    assert children

    os.kill(worker.pid, signal.SIGKILL)
    worker.wait()
    _, alive = psutil.wait_procs(children, timeout=30)
    client.home.start("worker")

    assert not alive, "the job's process outlived its parent"
    assert client.settled(where)["status"] in DONE
    assert client.get(path)["attempt"] == 2
    assert len(client.versions(model)) == versions + 1


def test_kill_9_of_the_jobs_process_is_noticed_and_repaired(client, model, running_job, versions):
    where, path = running_job
    (child,) = psutil.Process(client.home.processes["worker"].pid).children()

    child.kill()

    assert client.settled(where)["status"] in DONE
    assert client.get(path)["attempt"] == 2
    assert len(client.versions(model)) == versions + 1


def test_a_stopped_worker_gives_its_job_back_at_once(client, running_job):
    where, path = running_job

    client.home.stop("worker")
    given_back = client.get(path)["status"]
    client.home.start("worker")

    assert given_back == "queued"
    assert client.settled(where)["status"] in DONE


def test_an_emptied_broker_loses_no_request(client, model, unnamed):
    client.home.stop("worker")
    where = client.request(model, unnamed(5))
    client.wait(where, lambda row: row["status"] == "scheduled")

    with redis.from_url(client.home.environment["LETHE_BROKER_URL"]) as broker:
        broker.flushall()
    client.home.start("worker")

    assert client.settled(where)["status"] in DONE


def test_rings_do_not_pile_up_while_nobody_hears_them(client, model, unnamed):
    """One for each queued job, however long it waits; the sweep rings every second here."""
    client.home.stop("worker")
    where = client.request(model, unnamed(5))
    client.wait(where, lambda row: row["status"] == "scheduled")
    time.sleep(4)

    with redis.from_url(client.home.environment["LETHE_BROKER_URL"]) as broker:
        waiting = broker.llen("lethe.jobs")
    client.home.start("worker")

    assert waiting <= 1
    assert client.settled(where)["status"] in DONE
