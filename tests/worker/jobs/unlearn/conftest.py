"""Registered models, requests to them, and how their jobs ended."""

from datetime import timedelta
from itertools import count
from uuid import UUID

import pytest
from sqlalchemy import func, select, update

from domain.states import JobKind, JobStatus, Objective
from domain.tables import DeletionRequest, DeletionTarget, Job, Model, ModelVersion, Round
from tests import factories
from tests.worker.jobs.unlearn.digit_models import ALLOWED, COUNT, FACTORIES, LABELS, PARTS, RECIPES
from worker.engine.workbench import Workbench
from worker.housekeeping import planner
from worker.jobs.index_dataset import index_dataset
from worker.jobs.register_model import register_model


@pytest.fixture
def toy_models(module_of):
    """The module in which models and recipes are looked up."""
    return module_of("toy_models", *FACTORIES, *RECIPES)


@pytest.fixture
def registered(
    toy_models, write, register, bench_for, definition, sync_sessions, refreshed, tmp_path
):
    """A model of this kind, registered by the jobs that do so. Its id, and so the samples kept for
    its jobs, are the same in every run of the test. `groups` says whose each sample is."""

    def make(kind, *, recipe=None, groups=None, **policy) -> Model:
        known = kind(tmp_path)
        columns = {
            "id": [f"digit-{n}" for n in range(COUNT)],
            "pixels": known.pop("inputs"),
            "digit": LABELS,
            "part": PARTS,
        }
        inputs = {name: known.pop(name) for name in ("kind", "input_shape")}
        if groups is not None:
            columns["who"] = groups
            inputs["columns"] = definition["columns"] | {"group": "who"}
        dataset = register(write(columns), definition=definition | inputs)
        index_dataset(bench_for(dataset))
        if recipe:
            recipe = f"toy_models:{recipe}"
        recipe = known.pop("recipe", recipe)
        sizes = {"reservoir_samples": 100, "evaluation_samples": 100}
        policy = sizes | {"mode": "approximate"} | policy  # to retrain one takes half a second
        with sync_sessions.begin() as session:
            model = Model(
                id=UUID(int=1), name="net", dataset_id=dataset.id, policy=policy, recipe=recipe,
                **known,
            )  # fmt: skip
            session.add(model)
        register_model(bench_for(model, **ALLOWED))
        return refreshed(model)

    return make


@pytest.fixture
def claim(sync_sessions, bench_of):
    """A workbench for the model's open job, whoever had it before."""

    def take(model) -> Workbench:
        over = func.now() - timedelta(seconds=1)
        with sync_sessions.begin() as session:
            session.execute(
                update(Job).where(Job.lease_until.is_not(None)).values(lease_until=over)
            )
            planner.free_expired(session, max_losses=9)
            queued = select(Job.id).filter_by(model_id=model.id, status=JobStatus.QUEUED)
            job_id = session.scalars(queued).one()
        return bench_of(job_id, **ALLOWED)

    return take


@pytest.fixture
def ask(sync_sessions, claim):
    """Plan a request to this model, and claim its job; its id, and so its seed, are the same in
    every run of the test."""
    ids_of_jobs = count(1)

    def make(model, *ids, **changes) -> Workbench:
        with sync_sessions.begin() as session:
            session.add(
                Job(
                    id=UUID(int=next(ids_of_jobs)),
                    kind=JobKind.UNLEARN,
                    model_id=model.id,
                    objective=changes.get("objective", Objective.UNTRAIN_SAMPLES),
                )
            )
            dataset = factories.dataset(id=model.dataset_id)  # for its id alone
            request = factories.request(dataset, samples=len(ids), **changes)
            session.add(request)
            session.flush()
            session.add(factories.target(request, model))
            session.add_all(factories.request_samples(request, *ids))
            session.flush()
            planner.plan(session)
        return claim(model)

    return make


@pytest.fixture
def outcome(sync_sessions):
    """A job as it ended, with its version, its request and its rounds."""

    def read(bench):
        with sync_sessions() as session:
            job = session.get_one(Job, bench.claim.job_id)
            version = session.scalars(select(ModelVersion).filter_by(job_id=job.id)).one()
            request = session.scalars(
                select(DeletionRequest)
                .join(DeletionTarget, DeletionTarget.request_id == DeletionRequest.id)
                .where(DeletionTarget.job_id == job.id)
            ).first()
            rounds = session.scalars(
                select(Round).filter_by(job_id=job.id).order_by(Round.number)
            ).all()
        return job, version, request, rounds

    return read
