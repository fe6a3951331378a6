import json
from datetime import timedelta
from functools import cache
from uuid import UUID

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.torch import save_model
from sklearn.datasets import load_digits
from sqlalchemy import func, select
from torch import nn

from domain import jobs
from domain.errors import JobError
from domain.policy import Escalation
from domain.states import JobKind, JobStatus, Mode, Objective, Split, Verdict
from domain.tables import (
    DeletionRequest,
    Estimate,
    EstimateSample,
    EstimateTarget,
    Job,
    Model,
    ModelVersion,
    ReferenceTables,
    Sample,
    Tombstone,
)
from tests import factories
from worker.engine import lease
from worker.housekeeping import planner
from worker.jobs import estimate as estimates
from worker.jobs.estimate import estimate, proportional
from worker.jobs.index_dataset import index_dataset
from worker.jobs.register_model import register_model
from worker.jobs.train_references import train_references
from worker.jobs.unlearn.job_time import line
from worker.networks.recipes import TrainingData
from worker.unlearning.samples import Samples

COUNT = 400
DIGITS = load_digits()
PARTS = np.array(["train", "train", "valid", "valid", "test"])[np.arange(COUNT) % 5]
ALLOWED = {"factories": ["toy_estimates:mlp"], "recipes": ["toy_estimates:quick"]}


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


def quick(model, data, *, seed):
    inputs, labels = data.batch(torch.arange(len(data)))
    optimizer = torch.optim.Adam(model.parameters(), 0.01, fused=True)
    for _ in range(40):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), labels).backward()
        optimizer.step()
    return model


def labels() -> np.ndarray:
    """The digits, but every fourth is mislabelled: those can only be learned by heart."""
    wrong = np.arange(COUNT) % 4 == 0
    return np.where(wrong, (DIGITS.target[:COUNT] + 5) % 10, DIGITS.target[:COUNT])


@cache
def trained() -> nn.Module:
    """A network that knows all training samples by heart."""
    torch.manual_seed(0)
    mine = PARTS == "train"
    samples = Samples(
        torch.tensor(DIGITS.data[:COUNT][mine] / 16).float(), torch.tensor(labels()[mine])
    )
    model = mlp()
    for _ in range(6):
        quick(model, TrainingData(samples, lambda pixels: pixels), seed=0)
    return model.eval()


@pytest.fixture(autouse=True)
def modules(module_of) -> None:
    module_of("toy_estimates", mlp, quick)


@pytest.fixture
def registered(write, register, definition, bench_for, sync_sessions, tmp_path, refreshed):
    """A registered model with this policy, which keeps the same samples in every run."""

    def make(recipe=None, **policy):
        columns = {
            "id": [f"digit-{n}" for n in range(COUNT)],
            "pixels": pa.array((DIGITS.data[:COUNT] / 16).tolist(), pa.list_(pa.float32())),
            "digit": labels(),
            "part": PARTS,
        }
        dataset = register(
            write(columns), definition={**definition, "kind": "features", "input_shape": [64]}
        )
        index_dataset(bench_for(dataset))
        save_model(trained(), str(tmp_path / "mlp.safetensors"))
        model = Model(
            id=UUID(int=1),
            name="mlp",
            dataset_id=dataset.id,
            weights_uri=str(tmp_path / "mlp.safetensors"),
            architecture={"kind": "python", "factory": "toy_estimates:mlp"},
            head="2",
            preprocessing={},
            recipe=recipe,
            policy={
                "reservoir_samples": 100,
                "evaluation_samples": 200,
                "mode": "approximate",
                **policy,
            },
        )
        with sync_sessions.begin() as session:
            session.add(model)
        register_model(bench_for(model, **ALLOWED))
        return refreshed(model)

    return make


@pytest.fixture
def asked(sync_sessions, bench_of):
    """A claimed job that estimates what forgetting these samples would meet, always with the same
    seed."""

    def ask(model, named, *, objective=Objective.UNTRAIN_SAMPLES, exact=False):
        with sync_sessions.begin() as session:
            job = Job(id=UUID(int=1), kind=JobKind.ESTIMATE, model_id=model.id, objective=objective)
            question = Estimate(
                dataset_id=model.dataset_id, objective=objective, exact=exact,
                samples=len(named), duplicates=0,
            )  # fmt: skip
            session.add_all([job, question])
            session.flush()
            session.add(
                EstimateTarget(
                    estimate_id=question.id, model_id=model.id, job_id=job.id,
                    already_forgotten=0, not_trained_on=0,
                )
            )  # fmt: skip
            session.add_all(EstimateSample(job_id=job.id, sample_id=name) for name in named)
        return bench_of(job, **ALLOWED)

    return ask


@pytest.fixture
def outcome(sync_sessions):
    """The job's status and its result, as it comes back from JSON."""

    def read(bench):
        with sync_sessions.begin() as session:
            job = session.get_one(Job, bench.claim.job_id, populate_existing=True)
            target = session.scalars(select(EstimateTarget).filter_by(job_id=job.id)).one()
            return job.status, target.result

    return read


def ids(sync_sessions, model, split=Split.TRAIN, **more):
    with sync_sessions.begin() as session:
        chosen = select(Sample.sample_id).filter_by(dataset_id=model.dataset_id, split=split)
        return list(session.scalars(chosen.filter_by(**more).order_by(Sample.position)))


def test_memorised_samples_are_told_from_the_holdout(registered, asked, outcome, sync_sessions):
    model = registered()
    bench = asked(model, ids(sync_sessions, model)[:60])

    estimate(bench)

    status, result = outcome(bench)
    assert status is JobStatus.COMPLETED
    assert (result["version"], result["samples"], result["measured"]) == (1, 60, 60)
    assert result["forgotten_share"] == pytest.approx(60 / 160)
    assert result["audit_has_power"] is True
    names = {test["name"] for test in result["tests"]}
    assert {"alignment", "membership_loss", "accuracy"} <= names
    assert result["memorisation"]["measure"] == "loss_gap"
    assert result["memorisation"]["value"] > 0.3
    assert result["predicted_seconds"] > 0
    assert "timed" in result["prediction_basis"]
    assert json.loads(json.dumps(result)) == result


def test_the_ids_are_gone_and_nothing_else_has_changed(registered, asked, sync_sessions):
    model = registered()
    bench = asked(model, ids(sync_sessions, model)[:5])

    estimate(bench)

    with sync_sessions.begin() as session:
        for table, rows in ((EstimateSample, 0), (DeletionRequest, 0), (Tombstone, 0)):
            assert session.scalar(select(func.count()).select_from(table)) == rows
        assert session.scalar(select(func.count()).select_from(ModelVersion)) == 1


def test_the_ids_go_with_a_job_that_fails(registered, asked, sync_sessions):
    model = registered()
    every = ids(sync_sessions, model, Split.HOLDOUT) + ids(sync_sessions, model)[:3]
    bench = asked(model, every)

    with pytest.raises(JobError, match="hold-out"):
        estimate(bench)
    with sync_sessions.begin() as session:
        jobs.fail(
            session, lease.hold(session, bench.claim), actor="worker", kind="input", reason="so"
        )

    with sync_sessions.begin() as session:
        assert session.scalar(select(func.count()).select_from(EstimateSample)) == 0


def test_the_sweep_deletes_ids_that_no_open_job_needs(registered, asked, sync_sessions):
    model = registered()
    named = ids(sync_sessions, model)[:3]
    asked(model, named)
    with sync_sessions.begin() as session:
        done = Job(kind=JobKind.ESTIMATE, model_id=model.id, status=JobStatus.COMPLETED)
        session.add(done)
        session.flush()
        session.add_all(EstimateSample(job_id=done.id, sample_id=name) for name in named)

    planner.sweep(sync_sessions, max_losses=3)

    with sync_sessions.begin() as session:
        assert session.scalar(select(func.count()).select_from(EstimateSample)) == len(named)
        assert session.scalar(select(func.count()).where(EstimateSample.job_id == done.id)) == 0


def test_reference_models_measure_memorisation(registered, asked, outcome, sync_sessions, bench_of):
    model = registered(recipe="toy_estimates:quick", reference_models=2)
    with sync_sessions.begin() as session:
        job = session.scalars(select(Job).filter_by(kind=JobKind.TRAIN_REFERENCES)).one()
        assert job.status is JobStatus.QUEUED
    train_references(bench_of(job, **ALLOWED))
    with sync_sessions.begin() as session:
        assert session.get(ReferenceTables, model.id)
    bench = asked(model, ids(sync_sessions, model)[:30], exact=True)

    estimate(bench)

    _, result = outcome(bench)
    assert result["memorisation"]["measure"] == "confidence_gap"
    assert result["memorisation"]["value"] > 0
    assert "membership_per_sample" in {test["name"] for test in result["tests"]}
    assert result["mode"] == "exact"
    assert "reference models on halves" in result["prediction_basis"]
    assert result["predicted_seconds"] >= 0


def test_a_share_too_large_for_a_model_without_a_recipe_is_foretold(
    registered, asked, outcome, sync_sessions
):
    model = registered()
    bench = asked(model, ids(sync_sessions, model)[:100])

    estimate(bench)

    status, result = outcome(bench)
    assert status is JobStatus.COMPLETED
    assert result["mode"] is None
    assert "no recipe" in result["mode_reason"]
    assert result["predicted_seconds"] is None


def test_a_share_too_large_is_sent_to_retraining(registered, asked, outcome, sync_sessions):
    model = registered(recipe="toy_estimates:quick")
    bench = asked(model, ids(sync_sessions, model)[:100])

    estimate(bench)

    _, result = outcome(bench)
    assert result["mode"] == "exact"
    assert "training steps timed at registration" in result["prediction_basis"]


def test_only_so_many_samples_are_looked_at(registered, asked, outcome, sync_sessions, monkeypatch):
    monkeypatch.setattr(estimates, "MEASURED", 20)
    model = registered()
    bench = asked(model, ids(sync_sessions, model)[:50])

    estimate(bench)

    _, result = outcome(bench)
    assert (result["samples"], result["measured"]) == (50, 20)


def test_a_class_can_be_asked_about(registered, asked, outcome, sync_sessions):
    model = registered()
    bench = asked(model, ids(sync_sessions, model, label=3), objective=Objective.REMOVE_CLASS)

    estimate(bench)

    status, result = outcome(bench)
    assert status is JobStatus.COMPLETED
    assert result["measured"] == result["samples"]


@pytest.mark.parametrize("all_of_them", [True, False])
def test_a_class_that_would_lose_everything_is_named(
    registered, asked, outcome, sync_sessions, monkeypatch, all_of_them
):
    monkeypatch.setattr(estimates, "MEASURED", 5)  # of all that are named, not of those measured
    model = registered()
    threes = ids(sync_sessions, model, label=3)
    bench = asked(model, threes if all_of_them else threes[1:])

    estimate(bench)

    lost = outcome(bench)[1]["lost_classes"]
    assert [each["label"] for each in lost] == ([3] if all_of_them else [])
    for each in lost:
        assert each["training_samples"] == len(threes)
        assert each["accuracy"] > 0.5
        assert each["holdout_samples"] > 0


def test_where_nothing_is_left_to_forget_nothing_is_measured(
    registered, asked, outcome, sync_sessions
):
    model = registered()
    bench = asked(model, ids(sync_sessions, model, Split.HOLDOUT)[:3])

    estimate(bench)

    assert outcome(bench) == (JobStatus.COMPLETED, {"version": 1, "samples": 0})


def test_finished_jobs_tell_how_long_the_next_one_takes(registered, asked, outcome, sync_sessions):
    model = registered()
    named = ids(sync_sessions, model)
    with sync_sessions.begin() as session:
        now = session.scalar(select(func.now()))
        for start, count, attempt, verdict, rounds in (
            (0, 10, 1, Verdict.PASS, 1),
            (10, 20, 1, Verdict.NO_POWER, 1),
            (0, 0, 2, Verdict.PASS, 1),  # lost or stopped once: it waited, too
            (0, 0, 1, Verdict.FAIL, 1),
            (0, 0, 1, Verdict.PASS, 2),  # escalated
        ):
            job = Job(
                kind=JobKind.UNLEARN, model_id=model.id, status=JobStatus.COMPLETED,
                mode=Mode.APPROXIMATE, attempt=attempt, verdict=verdict, started_at=now,
                finished_at=now + timedelta(seconds=5 + count),
            )  # fmt: skip
            session.add(job)
            session.flush()
            steps = [None, Escalation.MORE_CYCLES][:rounds]
            session.add_all(
                factories.tried(job, number, step=step) for number, step in enumerate(steps, 1)
            )
            for name in named[start : start + count]:
                session.add(factories.tombstone(model, job, name))
    bench = asked(model, named[30:70])

    estimate(bench)

    _, result = outcome(bench)
    assert result["predicted_seconds"] == pytest.approx(45)
    assert result["prediction_basis"] == "2 finished jobs of this model"


@pytest.mark.parametrize(
    ("timings", "seconds"),
    [
        ([(10, 15.0)], 15),
        ([(10, 15.0), (10, 17.0)], 16),
        ([(10, 15.0), (20, 25.0)], 105),
        ([(10, 25.0), (20, 15.0)], 20),
    ],
)
def test_time_is_a_constant_and_so_much_for_each_sample(timings, seconds):
    assert line(timings).of(100) == pytest.approx(seconds)


def test_a_draw_keeps_the_class_mix():
    generator = torch.Generator().manual_seed(0)
    mixed = torch.tensor([0] * 80 + [1] * 20)

    drawn = proportional(mixed, 10, generator)

    assert mixed[drawn].bincount().tolist() == [8, 2]
    assert len(set(drawn.tolist())) == 10
    assert sorted(proportional(mixed, 500, generator).tolist()) == list(range(100))
