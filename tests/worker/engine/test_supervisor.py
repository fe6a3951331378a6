"""The parent of a job: what it stores when the child cannot, and when it must not."""

import multiprocessing
import os
import sys
import threading
from datetime import timedelta

import pytest
import structlog
from sqlalchemy import func, select, update
from sqlalchemy.orm import sessionmaker

from domain.settings import WorkerSettings
from domain.states import JobStatus
from domain.tables import Job, Model
from tests import acting, factories
from worker.engine import confinement, exits, forks, lease, supervisor
from worker.engine.supervisor import Orders
from worker.housekeeping import planner

HEED_SIGTERM = "import signal\nsignal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})\n"


@pytest.fixture
def sessions(own_database_url):
    engine = acting.engine(own_database_url)
    yield sessionmaker(engine, expire_on_commit=False)
    engine.dispose()


@pytest.fixture
def job_id(sessions):
    with sessions.begin() as session:
        dataset = factories.dataset()
        session.add(dataset)
        session.flush()
        model = factories.model(dataset)
        session.add(model)
        session.flush()
        job = factories.job(model_id=model.id)
        session.add(job)
    return job.id


@pytest.fixture
def run(sessions, job_id, own_database_url, tmp_path, monkeypatch):
    """Run the job with a child that executes `code`; the job's row afterwards."""
    children = []

    def run(code, orders=None, once_spawned=lambda child: None, **settings):
        def spawn(held):
            child = forks.start(exec, HEED_SIGTERM + code)
            children.append(child)
            once_spawned(child)
            return child

        monkeypatch.setattr(supervisor, "_spawn", spawn)
        settings = WorkerSettings(
            database_url=own_database_url,
            broker_url="redis://localhost:1/0",
            store=tmp_path,
            heartbeat=timedelta(seconds=0.1),
            **settings,
        )
        supervisor.run(job_id, sessions, settings, worker="w", orders=orders or Orders())
        assert not any(child.is_alive() for child in children)
        with sessions() as session:
            return session.get_one(Job, job_id)

    return run


def test_a_child_that_crashes_costs_one_loss(run):
    job = run("import os; os._exit(7)")

    assert (job.status, job.losses) == (JobStatus.QUEUED, 1)


@pytest.mark.parametrize("code", [exits.STOPPED, exits.DATABASE_AWAY])
def test_a_child_that_gives_the_job_back_costs_nothing(run, code):
    job = run(f"import os; os._exit({code})")

    assert (job.status, job.losses, job.not_before) == (JobStatus.QUEUED, 0, None)


def test_a_database_that_refuses_costs_a_loss_and_time(run):
    job = run(f"import os; os._exit({exits.DATABASE_FAILED})")

    assert (job.status, job.losses) == (JobStatus.QUEUED, 1)
    assert job.not_before is not None


def test_a_job_that_loses_its_child_too_often_fails(run):
    job = run("import os; os._exit(7)", max_losses=1)

    assert job.status is JobStatus.FAILED
    assert job.failure["kind"] == "worker_lost"
    assert "code 7" in job.failure["reason"]


def test_a_job_whose_process_cannot_be_started_costs_one_loss(run, monkeypatch):
    def refuse(work, *arguments):
        raise EOFError

    monkeypatch.setattr(forks, "is_ready", lambda also: True)
    monkeypatch.setattr(forks, "start", refuse)

    job = run("", max_losses=1)

    assert "fork server" in job.failure["reason"]


def test_a_job_is_spawned_where_a_fork_may_crash(run, monkeypatch):
    monkeypatch.setattr(forks, "METHOD", "spawn")
    monkeypatch.setattr(forks, "JOB", "worker.nothing_there")

    job = run("import os; os._exit(7)")

    assert (job.status, job.losses) == (JobStatus.QUEUED, 1)


def test_no_job_is_taken_where_none_can_be_started(run, monkeypatch):
    monkeypatch.setattr(forks, "JOB", "worker.nothing_there")

    job = run("")

    assert (job.status, job.attempt) == (JobStatus.QUEUED, 0)


def test_the_fork_server_imports_what_models_are_built_from(run, sessions, monkeypatch):
    asked = []
    monkeypatch.setattr(forks, "is_ready", asked.append)

    run("")
    with sessions.begin() as session:
        session.execute(update(Model).values(architecture={"kind": "transformers"}))
    run("")

    assert asked == [(), supervisor.TRANSFORMERS]


def test_a_fork_server_is_started_anew_for_more_modules_and_for_no_others(monkeypatch):
    def ids():
        here, there = multiprocessing.Pipe()
        forks.start(_tell, there).join()
        return here.recv()

    monkeypatch.setattr(forks, "_told", [])
    server, _ = ids()

    assert forks.is_ready()
    assert ids() == (server, False)

    assert forks.is_ready(["this"])
    anew = ids()
    assert anew[0] != server
    assert anew[1]

    assert forks.is_ready()
    assert forks.is_ready(["this"])
    assert ids() == anew


def _tell(pipe):
    """The fork server, and whether it has imported a module that nobody else does."""
    pipe.send((os.getppid(), "this" in sys.modules))


def test_a_worker_that_is_stopped_takes_no_job(run):
    orders = Orders()
    orders.stop.set()

    assert run("", orders=orders).attempt == 0


def test_a_child_that_runs_too_long_is_killed_and_the_job_fails(run):
    job = run("import time; time.sleep(60)", job_time_limit=timedelta(seconds=0.5))

    assert job.status is JobStatus.FAILED
    assert job.failure["kind"] == "time_limit"


def test_a_child_that_the_kernel_kills_for_memory_fails_at_once_and_says_so(run, monkeypatch):
    counts = iter([3, 4])
    monkeypatch.setattr(confinement, "killed_for_memory", lambda: next(counts))

    job = run("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")

    assert (job.status, job.losses) == (JobStatus.FAILED, 0)
    assert job.failure["kind"] == "memory"
    assert "the machine's memory ran out" in job.failure["reason"]


def test_a_child_that_is_killed_otherwise_costs_one_loss(run):
    job = run("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")

    assert (job.status, job.losses) == (JobStatus.QUEUED, 1)


def test_a_child_out_of_processor_time_fails(run):
    job = run("import os, signal; os.kill(os.getpid(), signal.SIGXCPU)")

    assert job.failure["kind"] == "time_limit"


def test_a_worker_that_is_stopped_gives_the_job_back(run):
    orders = Orders()

    job = run("import time; time.sleep(60)", orders, lambda child: orders.stop.set())

    assert (job.status, job.losses) == (JobStatus.QUEUED, 0)


def test_a_child_has_time_to_finish_its_cycle_and_no_more(run):
    stubborn = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
    orders = Orders()

    job = run(stubborn, orders, lambda child: orders.stop.set(), stop_grace=timedelta(seconds=1))

    assert (job.status, job.losses) == (JobStatus.QUEUED, 0)


def test_at_once_means_at_once(run):
    stubborn = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
    orders = Orders()

    def stop_now(child):
        orders.stop.set()
        orders.stop_now.set()

    job = run(stubborn, orders, stop_now)

    assert (job.status, job.attempt) == (JobStatus.QUEUED, 1)


def test_a_cancelled_job_is_left_and_nothing_is_stored(run, sessions):
    def cancel(child):
        with sessions.begin() as session:
            cancelled = {"status": JobStatus.CANCELLED, "lease_until": None}
            session.execute(update(Job).values(cancelled))

    job = run("import time; time.sleep(60)", once_spawned=cancel)

    assert (job.status, job.losses) == (JobStatus.CANCELLED, 0)


@pytest.fixture
def told(monkeypatch):
    """What the parent logs."""
    monkeypatch.setattr(supervisor, "log", structlog.wrap_logger(None))
    with structlog.testing.capture_logs() as events:
        yield events


@pytest.mark.parametrize(
    ("code", "returncode", "failure"),
    [
        ("import os, time; time.sleep(0.3); os._exit(0)", 0, None),
        ("import time; time.sleep(60)", -9, None),  # too slow to exit: its parent ends it
        (f"import os; os._exit({exits.LEASE_LOST})", exits.LEASE_LOST, None),  # it looked again
        ("import os; os._exit(7)", 7, {"kind": "input", "reason": "so"}),  # on its way out
    ],
)
def test_a_job_that_ended_is_never_told_as_lost(
    run, sessions, told, monkeypatch, code, returncode, failure
):
    # So the parent sees its end before its child's, where the child takes its time.
    monkeypatch.setattr(supervisor, "ASK_S", 0)
    monkeypatch.setattr(supervisor, "GRACE_S", 1)
    status = JobStatus.FAILED if failure else JobStatus.COMPLETED

    def end(child):
        with sessions.begin() as session:
            ended = {"status": status, "lease_until": None, "failure": failure}
            session.execute(update(Job).values(ended))

    job = run(code, once_spawned=end)

    assert [event for event in told if event["event"] == "job.lost"] == []
    assert (told[-1]["event"], told[-1]["how"]) == ("job.left", "ended")
    assert told[-1]["returncode"] == returncode
    assert (job.status, job.losses) == (status, 0)


def test_a_child_that_finds_first_that_its_job_is_gone_is_told_as_lost(run, told):
    job = run(f"import os; os._exit({exits.LEASE_LOST})")

    assert (told[-1]["event"], told[-1]["how"]) == ("job.left", "lost")
    assert job.losses == 0


def test_the_files_that_a_killed_child_left_go(run, tmp_path, job_id):
    unfinished = f"incoming-{job_id}-1-abc"
    run(f"import os; open('{tmp_path}/{unfinished}', 'w').close(); os._exit(9)")

    assert not (tmp_path / unfinished).exists()


def test_the_lease_is_renewed_while_the_child_works(run, monkeypatch, tmp_path):
    renewed = tmp_path / "renewed"
    renew = lease.renew

    def let_the_child_end(session, held, *, lease):
        renew(session, held, lease=lease)
        renewed.touch()

    monkeypatch.setattr(lease, "renew", let_the_child_end)
    longer = timedelta(minutes=5)
    patient = f"import os, time\nwhile not os.path.exists({str(renewed)!r}): time.sleep(0.05)"

    job = run(patient, lease=longer)

    assert job.status is JobStatus.RUNNING  # this child ended without storing an outcome
    assert job.lease_until > job.started_at + longer


def test_a_child_whose_job_went_to_another_is_killed_and_nothing_is_stored(run, sessions, job_id):
    def take_it_away(child):
        with sessions.begin() as session:
            session.execute(update(Job).values(lease_until=func.now() - timedelta(seconds=1)))
            planner.free_expired(session, max_losses=3)
            lease.claim(session, job_id, worker="other", lease=timedelta(seconds=45))

    job = run("import time; time.sleep(60)", once_spawned=take_it_away)

    assert (job.status, job.attempt, job.worker) == (JobStatus.RUNNING, 2, "other")


def test_a_job_that_holds_its_own_row_blocks_nobody_and_keeps_the_lease(run, sessions, job_id):
    """A child stores its outcome in a transaction that takes longer than the lease."""
    with sessions() as storing:

        def hold(child):
            storing.scalars(select(Job.id).with_for_update()).one()
            threading.Timer(2.5, storing.rollback).start()

        ends_later = "import os, time; time.sleep(3); os._exit(7)"
        job = run(ends_later, once_spawned=hold, lease=timedelta(seconds=1))

    assert job.losses == 1  # it ended by itself, and was not killed as one that is somebody else's


def test_orders_are_followed_while_the_row_is_locked(run, sessions):
    orders = Orders()
    with sessions() as storing:

        def hold(child):
            storing.scalars(select(Job.id).with_for_update()).one()
            threading.Timer(1.3, orders.stop_now.set).start()
            threading.Timer(3, storing.rollback).start()

        def stopped():
            return run("import time; time.sleep(60)", orders=orders, once_spawned=hold)

        job = stopped()

    assert (job.status, job.losses) == (JobStatus.QUEUED, 0)


def test_a_job_that_another_has_is_left_alone(run, sessions, job_id):
    with sessions.begin() as session:
        lease.claim(session, job_id, worker="other", lease=timedelta(seconds=45))

    job = run("raise SystemExit(1)")

    assert (job.attempt, job.worker) == (1, "other")
