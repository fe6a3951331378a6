"""What an operator or a machine can do to the processes, and what must hold all the same."""

import dataclasses
import os
import signal
import time
from pathlib import Path

import psutil
import psycopg
import pytest
import redis

from devstack import local, roles
from tests.end_to_end.conftest import DONE, Client


def is_computing(job):
    return job["status"] == "running" and "forgetting" in (job["phase"] or "")


@pytest.fixture
def versions(client, model):
    """How many versions the model had before the test."""
    return len(client.versions(model))


@pytest.fixture
def running_job(client, model, unnamed, versions):
    """A request whose job is in the middle of forgetting: path of the request, path of the job."""
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
    (child,) = client.home.jobs("worker")

    child.kill()

    assert client.settled(where)["status"] in DONE
    assert client.get(path)["attempt"] == 2
    assert len(client.versions(model)) == versions + 1


def test_kill_9_of_the_fork_server_ends_the_job_too_and_both_are_started_again(
    client, model, running_job, versions
):
    where, path = running_job
    (child,) = client.home.jobs("worker")

    child.parent().kill()

    child.wait(5)
    assert client.settled(where)["status"] in DONE
    assert client.get(path)["attempt"] == 2
    assert len(client.versions(model)) == versions + 1


def test_a_stopped_worker_finishes_its_cycle_and_the_next_goes_on_from_there(client, running_job):
    where, path = running_job
    worker = client.home.processes.pop("worker")

    os.killpg(worker.pid, signal.SIGTERM)  # all its processes at once, as systemd does
    worker.wait(20)
    given_back = client.get(path)
    client.home.start("worker")

    assert (given_back["status"], given_back["losses"]) == ("queued", 0)
    assert client.settled(where)["status"] in DONE
    cycles = client.sql(
        "SELECT attempt FROM alignment_scores WHERE job_id = %s ORDER BY round, cycle",
        given_back["id"],
    )
    assert cycles[0]["attempt"] == 1  # not done anew; the second may be of either attempt
    assert told(client, given_back["id"], "job.resumed")
    while not (deleted := told(client, given_back["id"], "checkpoints.deleted")):
        time.sleep(0.1)  # by the job's parent, just after its end
    assert deleted == [{"files": 1, "left": 0}]


def told(client, subject_id, event):
    """What the audit trail says of each event of this kind."""
    query = "SELECT data FROM audit_events WHERE subject_id = %s AND event = %s ORDER BY id"
    return [row["data"] for row in client.sql(query, subject_id, event)]


def test_ctrl_c_twice_ends_a_worker_now(client, running_job):
    where, path = running_job
    worker = client.home.processes.pop("worker")

    os.kill(worker.pid, signal.SIGINT)
    time.sleep(0.3)
    os.kill(worker.pid, signal.SIGINT)
    worker.wait(6)
    given_back = client.get(path)
    client.home.start("worker")

    assert (given_back["status"], given_back["losses"]) == ("queued", 0)
    assert client.settled(where)["status"] in DONE


def test_a_cancelled_job_stops_within_seconds_and_leaves_nothing(
    client, new_model, unnamed, versions
):
    model = new_model(policy={"escalation": []})
    client.home.stop("worker")
    cancelled, kept = (client.request(model, unnamed(30)) for _ in range(2))
    job = client.job_of(cancelled)
    assert client.job_of(kept)["id"] == job["id"]
    client.home.start("worker")
    client.wait(f"/v1/jobs/{job['id']}", is_computing)
    (child,) = client.home.jobs("worker")
    champion = client.get(f"/v1/models/{model}")["champion"]

    started = time.monotonic()
    assert client.http.post(f"{cancelled}/cancel").json()["status"] == "cancelled"
    child.wait(10)
    while list(checkpoints(client, job["id"])):
        assert time.monotonic() - started < 10
        time.sleep(0.1)

    assert not list(Path(client.home.environment["LETHE_STORE"]).glob(f"incoming-{job['id']}*"))
    assert client.get(f"/v1/jobs/{job['id']}")["status"] == "cancelled"
    assert client.get(f"/v1/models/{model}")["champion"] == champion
    assert client.settled(kept)["status"] in DONE
    assert client.job_of(kept)["id"] != job["id"]
    assert client.get(cancelled)["status"] == "cancelled"


def checkpoints(client, job_id):
    return Path(client.home.environment["LETHE_STORE"]).glob(f"checkpoints/{job_id}/*")


def test_connections_to_postgres_that_break_again_and_again_do_not_fail_a_job(client, running_job):
    where, path = running_job
    superuser_url = roles.as_role(client.home.owner_url, roles.SUPERUSER)

    for _ in range(8):
        with psycopg.connect(superuser_url) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE pid <> pg_backend_pid() AND datname = current_database()"
            )
        time.sleep(0.5)

    assert client.settled(where)["status"] in DONE
    job = client.get(path)
    assert (job["attempt"], job["losses"]) == (1, 0)


def test_without_a_broker_requests_are_accepted_and_found(client, model, unnamed):
    deaf = dataclasses.replace(
        client.home,
        environment={**client.home.environment, "LETHE_BROKER_URL": "redis://127.0.0.1:1/0"},
        port=local.free_port(),
        processes={},
    )
    for name in ("worker", "beat"):
        client.home.stop(name)
    for name in ("api", "worker"):
        deaf.start(name)
    try:
        deaf.wait_until_ready()
        with (asking := Client(deaf)).http:
            where = asking.request(model, unnamed(5))
        assert client.settled(where)["status"] in DONE
    finally:
        for name in ("api", "worker"):
            deaf.stop(name)
        for name in ("worker", "beat"):
            client.home.start(name)


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
