"""Jobs outlast a restart of Postgres, each at its last transaction, and do no work again.

On a server of its own, which the tests stop and start again.
"""

import signal
import sys
import threading
from pathlib import Path
from types import ModuleType
from uuid import uuid4

import psutil
import psycopg
import pytest
from safetensors.torch import save_model
from sqlalchemy import event, select, update
from sqlalchemy.engine import make_url
from torch import nn

from devstack import local, roles
from domain.database import sync_engine
from domain.database import sync_sessions as sessions_of
from domain.states import JobKind, JobStatus, Objective, RegistrationStatus, VersionStatus
from domain.tables import (
    AuditEvent,
    Dataset,
    DatasetCheck,
    Estimate,
    EstimateSample,
    EstimateTarget,
    Job,
    ModelVersion,
)
from tests import acting, factories
from tests.worker.jobs import restarts
from worker import child
from worker.data import parquet_rewrite, staging
from worker.housekeeping import planner
from worker.jobs import check_dataset, estimate, purge, register_model, register_version
from worker.jobs.unlearn import rounds

CLASSES = 3
NAMED = ["person-0", "person-4", "person-8"]  # training samples, of each class one
LEFT = [f"person-{n}" for n in range(48) if n % 4 < 2 and f"person-{n}" not in NAMED]
POLICY = {
    "reservoir_samples": 24, "evaluation_samples": 12, "escalation": [], "mode": "approximate",
}  # fmt: skip
ALLOWED = {"factories": ["toy_restarts:mlp"], "recipes": ["toy_restarts:recipe"]}


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, CLASSES))


def recipe(model: nn.Module, data, *, seed: int) -> nn.Module:
    return model


TOY = ModuleType("toy_restarts")
WORK = {
    JobKind.INDEX_DATASET: (staging, "stage", 1),
    JobKind.INDEX_STATE: (staging, "stage", 1),
    JobKind.REGISTER_MODEL: (register_model, "survey", 1),
    JobKind.REGISTER_VERSION: (register_version, "examine", 1),
    JobKind.TRAIN_REFERENCES: (TOY, "recipe", 2),
    JobKind.UNLEARN: (rounds, "unlearn", 1),
    JobKind.ESTIMATE: (estimate, "exchangeability", 1),
    JobKind.CHECK_DATASET: (check_dataset, "_find", 1),
    JobKind.ERASE_ROWS: (parquet_rewrite, "rewrite", 1),
    JobKind.PURGE: (purge, "_purge", 1),
}
"""Of each kind of job the function that does what takes long, and how often it is to be called."""


@pytest.fixture(scope="module")
def own_servers(tmp_path_factory, alembic):
    """Servers that may be stopped, with a migrated database to copy."""
    with local.servers(tmp_path_factory.mktemp("restarted")) as running:
        with psycopg.connect(running.superuser_url, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE migrated OWNER {roles.OWNER}")
            connection.execute("REVOKE TEMPORARY ON DATABASE migrated FROM PUBLIC")
        alembic("upgrade", url_of(running, "migrated"), "head")
        yield running


def url_of(servers, database):
    url = make_url(servers.owner_url).set(drivername="postgresql+psycopg", database=database)
    return url.render_as_string(hide_password=False)


@pytest.fixture
def engine(own_servers):
    name = f"test_{uuid4().hex}"
    with psycopg.connect(own_servers.superuser_url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE migrated")
    engine = sync_engine(roles.as_role(url_of(own_servers, name), roles.SUPERUSER))
    acting.as_their_roles(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def sync_sessions(engine):
    """In place of those whose transactions are undone: here they are committed."""
    return sessions_of(engine)


@pytest.fixture(autouse=True)
def toy(monkeypatch):
    monkeypatch.setattr(TOY, "mlp", mlp, raising=False)
    monkeypatch.setattr(TOY, "recipe", recipe, raising=False)
    monkeypatch.setitem(sys.modules, "toy_restarts", TOY)


@pytest.fixture
def ready_for(sync_sessions, bench_of, rows, write, register, definition, tmp_path):
    """Make what a job of this kind needs, with the jobs that make it; its claimed workbench."""

    def claimed(job_id):
        return bench_of(job_id, **ALLOWED)

    def queued(kind, **of):
        with sync_sessions.begin() as session:
            job = Job(kind=kind, **of)
            session.add(job)
        return job.id

    def new_dataset():
        path = write(rows(48, digit=[n // 4 % CLASSES for n in range(48)]))
        return register(path, definition={**definition, "erase": {"parquet": True}})

    def new_model(dataset, **policy):
        save_model(mlp(), str(tmp_path / "mlp.safetensors"))
        model = factories.model(
            dataset,
            weights_uri=str(tmp_path / "mlp.safetensors"),
            architecture={"kind": "python", "factory": "toy_restarts:mlp"},
            head="2",
            recipe="toy_restarts:recipe",
            policy={**POLICY, **policy},
            accept_accuracy=True,
            status=RegistrationStatus.PENDING,
        )
        with sync_sessions.begin() as session:
            session.add(model)
        return model

    def do(kind, **of):
        job_id = queued(kind, **of)
        assert child._carry_out(claimed(job_id)) == 0
        with sync_sessions() as session:
            assert session.get_one(Job, job_id).status is JobStatus.COMPLETED

    def index():
        dataset = new_dataset()
        do(JobKind.INDEX_DATASET, dataset_id=dataset.id)
        return dataset

    def registered(**policy):
        model = new_model(index(), **policy)
        do(JobKind.REGISTER_MODEL, model_id=model.id)
        return model

    def forgetful(dataset):
        """A model of the dataset that has forgotten some of it."""
        model = factories.model(dataset)
        by = factories.job(model_id=model.id, finished=True)
        with sync_sessions.begin() as session:
            key = session.get_one(Dataset, dataset.id).tombstone_key
            graves = [factories.tombstone(model, by, each, key=key) for each in NAMED]
            for some in ([model], [by], graves):
                session.add_all(some)
                session.flush()

    def to_index():
        return queued(JobKind.INDEX_DATASET, dataset_id=new_dataset().id)

    def to_index_state():
        dataset = index()
        forgetful(dataset)
        later = rows(52, digit=[n // 4 % CLASSES for n in range(52)])
        path = write({name: column[2:] for name, column in later.items()}, "later.parquet")
        job_id = queued(JobKind.INDEX_STATE, dataset_id=dataset.id)
        with sync_sessions.begin() as session:
            session.add(restarts.state(dataset, job_id, path))
        return job_id

    def to_register():
        return queued(JobKind.REGISTER_MODEL, model_id=new_model(index()).id)

    def to_train_references():
        model = registered(reference_models=2)
        with sync_sessions() as session:
            return session.scalars(
                select(Job.id).filter_by(model_id=model.id, status=JobStatus.QUEUED)
            ).one()

    def asked(model):
        """A request to forget some samples waits."""
        request = factories.request(factories.dataset(id=model.dataset_id), samples=len(NAMED))
        with sync_sessions.begin() as session:
            for some in (
                [request],
                [factories.target(request, model)],
                factories.request_samples(request, *NAMED),
            ):
                session.add_all(some)
                session.flush()

    def to_register_version():
        """The version was trained without what is asked to be forgotten."""
        model = registered()
        asked(model)
        weights = tmp_path / "later.safetensors"
        save_model(mlp(), str(weights))
        ids = write({"id": LEFT}, "ids.parquet")
        job_id = queued(JobKind.REGISTER_VERSION, model_id=model.id)
        with sync_sessions.begin() as session:
            session.add(restarts.version(model, job_id, weights, ids))
        return job_id

    def to_unlearn():
        asked(registered())
        [job_id] = planner.sweep(sync_sessions, max_losses=3)
        return job_id

    def to_estimate():
        model = registered()
        untrain = {"objective": Objective.UNTRAIN_SAMPLES}
        job_id = queued(JobKind.ESTIMATE, model_id=model.id, **untrain)
        asked = Estimate(
            dataset_id=model.dataset_id, exact=False, samples=len(NAMED), duplicates=0, **untrain
        )
        with sync_sessions.begin() as session:
            session.add(asked)
            session.flush()
            session.add(
                EstimateTarget(
                    estimate_id=asked.id, model_id=model.id, job_id=job_id,
                    already_forgotten=0, not_trained_on=0,
                )
            )  # fmt: skip
            session.add_all(EstimateSample(job_id=job_id, sample_id=name) for name in NAMED)
        return job_id

    def to_check():
        dataset = index()
        forgetful(dataset)
        job_id = queued(JobKind.CHECK_DATASET, dataset_id=dataset.id)
        with sync_sessions.begin() as session:
            where = {"uri": dataset.uri, "column": "id"}
            session.add(DatasetCheck(dataset_id=dataset.id, job_id=job_id, **where))
        return job_id

    def to_erase():
        dataset = index()
        forgetful(dataset)
        return queued(JobKind.ERASE_ROWS, dataset_id=dataset.id)

    def to_purge():
        registered()
        over = {"superseded_at": factories.NOW, "purge_after": factories.NOW}
        with sync_sessions.begin() as session:
            session.execute(update(ModelVersion).values(status=VersionStatus.SUPERSEDED, **over))
        [job_id] = planner.sweep(sync_sessions, max_losses=3)
        return job_id

    ways = {
        JobKind.INDEX_DATASET: to_index,
        JobKind.INDEX_STATE: to_index_state,
        JobKind.REGISTER_MODEL: to_register,
        JobKind.REGISTER_VERSION: to_register_version,
        JobKind.TRAIN_REFERENCES: to_train_references,
        JobKind.UNLEARN: to_unlearn,
        JobKind.ESTIMATE: to_estimate,
        JobKind.CHECK_DATASET: to_check,
        JobKind.ERASE_ROWS: to_erase,
        JobKind.PURGE: to_purge,
    }
    return lambda kind: claimed(ways[kind]())


@pytest.fixture
def work_of(monkeypatch):
    """Count from now on how often a job of this kind does its work."""

    def watch(kind):
        module, name, _ = WORK[kind]
        calls, original = [], getattr(module, name)

        def counted(*args, **keywords):
            calls.append(name)
            return original(*args, **keywords)

        monkeypatch.setattr(module, name, counted)
        return calls

    return watch


@pytest.fixture
def restart(own_servers):
    """Stop the server as an operator does; a second later another thread starts it again."""
    starting = []

    def stop():
        file = Path(own_servers.postgres.pgdata) / "postmaster.pid"
        postmaster = psutil.Process(int(file.read_text().split()[0]))
        postmaster.send_signal(signal.SIGINT)
        postmaster.wait(30)
        starting.append(threading.Timer(1, local.start_postgres, [own_servers.postgres]))
        starting[-1].start()

    yield stop
    for thread in starting:
        thread.join()


def ends_a_job(statement, parameters):
    return statement.startswith("UPDATE jobs") and "completed" in parameters.values()


def test_every_kind_of_job_is_looked_at():
    assert WORK.keys() == child.WORK.keys()


@pytest.mark.parametrize("kind", WORK)
def test_postgres_restarts_in_the_last_transaction_of_a_job(
    kind, ready_for, work_of, restart, engine, sync_sessions
):
    bench = ready_for(kind)
    calls, ends = work_of(kind), []

    @event.listens_for(engine, "before_cursor_execute")
    def stop_once(connection, cursor, statement, parameters, context, many):
        if ends_a_job(statement, parameters):
            ends.append(statement)
            if len(ends) == 1:
                restart()

    assert child._carry_out(bench) == 0

    assert len(ends) == 2
    assert_done_once(sync_sessions, bench, calls)


@pytest.mark.parametrize("kind", WORK)
def test_the_last_commit_of_a_job_is_made_but_not_acknowledged(
    kind, ready_for, work_of, own_servers, engine, monkeypatch, sync_sessions
):
    bench = ready_for(kind)
    calls, ends = work_of(kind), []
    commit = engine.dialect.do_commit

    @event.listens_for(engine, "before_cursor_execute")
    def ending(connection, cursor, statement, parameters, context, many):
        if ends_a_job(statement, parameters):
            ends.append(statement)

    def unacknowledged(connection):
        commit(connection)
        if len(ends) == 1:
            ends.append("committed")
            with psycopg.connect(own_servers.superuser_url) as other:
                pid = connection.driver_connection.info.backend_pid
                other.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
            connection.driver_connection.execute("SELECT 'is anybody there?'")

    monkeypatch.setattr(engine.dialect, "do_commit", unacknowledged)

    assert child._carry_out(bench) == 0

    assert ends[1:] == ["committed"]
    assert_done_once(sync_sessions, bench, calls)


def assert_done_once(sessions, bench, calls):
    """The job is completed, by its first attempt, and no work was repeated."""
    assert len(calls) == WORK[bench.claim.kind][2]
    with sessions() as session:
        job = session.get_one(Job, bench.claim.job_id)
        assert (job.status, job.attempt, job.losses) == (JobStatus.COMPLETED, 1, 0)
        events = session.scalars(
            select(AuditEvent.event).filter_by(subject_id=job.id).order_by(AuditEvent.id)
        ).all()
        assert [each for each in events if each != "job.queued"] == ["job.started", "job.completed"]
        named = session.scalars(select(ModelVersion).filter_by(purged_at=None)).all()
    digests = {getattr(each, name) for each in named for name in purge.FILES} - {None}
    assert bench.store.listed(digests) == digests
