"""Names that outlive a release: they are in databases, settings, brokers and process lists."""

import subprocess
import sys
from uuid import UUID

import numpy as np
import pyarrow as pa
import pytest
from safetensors.torch import save_model
from sklearn.datasets import load_digits
from sqlalchemy import select
from sqlalchemy.orm import sessionmaker

from devstack import local
from devstack.demo import digits
from domain import doorbell
from domain.settings import WorkerSettings
from domain.states import JobKind, JobStatus, Mode, Objective
from domain.tables import Job, Model, ModelVersion
from tests import acting, factories
from worker.housekeeping import planner
from worker.jobs.index_dataset import index_dataset
from worker.jobs.register_model import register_model

FACTORY, RECIPE = "demo.digits:cnn", "worker.recipes:train"
"""As releases before 0.2 named them."""

WORKER = """
import sys
from uuid import UUID

from worker.app import NAME, sessions, settings
from worker.engine import supervisor

supervisor.run(UUID(sys.argv[1]), sessions, settings, worker=NAME, orders=supervisor.Orders())
"""
"""A worker with one job. Jobs have the environment in which a process began its fork server."""

COUNT = 100
TASKS = ["worker.clean", "worker.deliver", "worker.keep_log", "worker.run", "worker.sweep"]


@pytest.fixture
def settings(own_database_url, tmp_path, monkeypatch):
    """Of a worker whose environment was written for an earlier release."""
    for name, value in {
        "DATABASE_URL": own_database_url,
        "BROKER_URL": "redis://localhost:1/0",
        "STORE": str(tmp_path / "store"),
        "DATA_ROOTS": f'["{tmp_path}"]',
        "FACTORIES": f'["{FACTORY}"]',
        "RECIPES": f'["{RECIPE}"]',
    }.items():
        monkeypatch.setenv(f"LETHE_{name}", value)
    return WorkerSettings()


@pytest.fixture
def sync_sessions(own_database_url):
    """A job in a process of its own sees what is committed."""
    engine = acting.engine(own_database_url)
    yield sessionmaker(engine, expire_on_commit=False)
    engine.dispose()


@pytest.fixture
def model(settings, write, register, bench_for, definition, sync_sessions, tmp_path):
    """The demo's model, as an earlier release stored it."""
    source = load_digits()
    columns = {
        "id": [f"digit-{n}" for n in range(COUNT)],
        "pixels": pa.array(source.data[:COUNT].astype(np.uint8).tolist(), pa.list_(pa.uint8())),
        "digit": source.target[:COUNT],
        "part": [["train", "train", "train", "valid", "test"][n % 5] for n in range(COUNT)],
    }
    dataset = register(write(columns), definition=definition | {"input_shape": [1, 8, 8]})
    index_dataset(bench_for(dataset))
    save_model(digits.cnn(width=4), str(tmp_path / "cnn.safetensors"))
    with sync_sessions.begin() as session:
        model = Model(
            name="cnn",
            dataset_id=dataset.id,
            weights_uri=str(tmp_path / "cnn.safetensors"),
            architecture={"kind": "python", "factory": FACTORY, "arguments": {"width": 4}},
            head="head",
            preprocessing={"scale": 1 / 16},
            policy={"reservoir_samples": 50, "evaluation_samples": 50},
            recipe=RECIPE,
            accept_accuracy=True,
        )
        session.add(model)
    register_model(bench_for(model, factories=settings.factories, recipes=settings.recipes))
    return model


@pytest.fixture
def job_id(model, sync_sessions) -> UUID:
    """A retraining that a request asks for."""
    with sync_sessions.begin() as session:
        request = factories.request(factories.dataset(id=model.dataset_id), exact=True)
        session.add_all(
            [Job(kind=JobKind.UNLEARN, model_id=model.id, objective=Objective.UNTRAIN_SAMPLES),
             request]
        )  # fmt: skip
        session.flush()
        session.add(factories.target(request, model))
        session.add_all(factories.request_samples(request, "digit-0", "digit-1"))
        session.flush()
        planner.plan(session)
        return session.scalars(select(Job.id).filter_by(kind=JobKind.UNLEARN)).one()


def test_a_model_of_an_earlier_release_is_retrained_under_settings_of_that_release(
    job_id, settings, sync_sessions
):
    subprocess.run([sys.executable, "-c", WORKER, str(job_id)], cwd=local.REPOSITORY, check=True)

    with sync_sessions() as session:
        job = session.get_one(Job, job_id)
        assert job.status is JobStatus.COMPLETED, job.failure
        made = session.scalars(select(ModelVersion).filter_by(job_id=job_id)).one()
    assert (made.number, made.mode) == (2, Mode.EXACT)
    assert job.config["recipe"] == RECIPE


def test_messages_of_an_earlier_release_are_understood(settings):
    """What lies in the broker while workers are replaced, and what an older API sends."""
    code = (
        "from worker.tasks import app; tasks = {n for n in app.tasks if n.startswith('worker.')}; "
        "clock = {each['task'] for each in app.conf.beat_schedule.values()}; "
        "assert clock < tasks; print(*sorted(tasks))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=local.REPOSITORY, capture_output=True, text=True
    )

    assert done.stdout.split() == TASKS, done.stderr


def test_messages_lie_in_the_queues_of_earlier_releases():
    queues = (doorbell.JOBS_QUEUE, doorbell.SWEEPS_QUEUE, doorbell.DELIVERIES_QUEUE)
    assert queues == ("lethe.jobs", "lethe.sweeps", "lethe.deliveries")
