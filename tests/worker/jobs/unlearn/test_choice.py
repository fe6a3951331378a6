"""What a job finds waiting and measured when it chooses between changing and retraining."""

import copy
from datetime import timedelta

import pyarrow as pa
import pytest
import torch
from sqlalchemy import func, select, update
from torch import nn

from domain.policy import Escalation
from domain.states import JobKind, JobStatus, Mode, Objective, RequestStatus, Verdict
from domain.tables import (
    Dataset,
    DeletionRequest,
    DeletionTarget,
    Job,
    JobCheckpoint,
    Model,
    Sample,
)
from tests import factories
from tests.worker.jobs.unlearn.digit_models import NAMED, TRAIN, flat_floats
from worker.jobs import timing
from worker.jobs.unlearn import choice, outlook
from worker.jobs.unlearn.inputs import order_of, read_order
from worker.jobs.unlearn.job import unlearn_model
from worker.networks import recipes
from worker.unlearning.network import Network

COUNT = len(TRAIN)
SLOW, QUICK = 5000.0, 10.0


def timings(retraining, **more):
    return {
        "cpu": {
            "retraining": {
                "measured": "retraining", "seconds": retraining, "samples": COUNT, "passes": None,
                "assumed": False,
            },
            "job": {"constant": 100.0, "per_sample": 1.0, "evaluation": 3.0},
            **more,
        }
    }  # fmt: skip


@pytest.fixture
def model(registered, sync_sessions):
    """A model of which it is known what it takes; of its requests those of 20 samples share a
    job."""

    def make(retraining, recipe="learn", **policy):
        policy = {"mode": "auto", "batch": {"max_samples": 20, "window": "PT0S"}} | policy
        model = registered(flat_floats, recipe=recipe, **policy)
        with sync_sessions.begin() as session:
            session.execute(update(Model).values(timings=timings(retraining)))
        return model

    return make


@pytest.fixture
def waiting(sync_sessions):
    """One more request to the model, that waits."""

    def add(model, *ids, former=0, waits_until=None, **changes):
        with sync_sessions.begin() as session:
            dataset = factories.dataset(id=model.dataset_id)
            request = factories.request(dataset, samples=len(ids), **changes)
            session.add(request)
            session.flush()
            session.add(factories.target(request, model, former=former, waits_until=waits_until))
            session.add_all(factories.request_samples(request, *ids))
        return request

    return add


@pytest.fixture
def chosen(sync_sessions):
    """What a claimed job chooses, and what it is to forget then."""

    def choose(bench):
        with sync_sessions.begin() as session:
            order = read_order(session, bench.claim.job_id)
        order, plan = choice.made(bench, order, remaining=COUNT)
        return plan, len(order.forget)

    return choose


def test_a_retraining_answers_all_that_waits(model, ask, waiting, outcome, sync_sessions):
    model = model(QUICK)
    bench = ask(model, *NAMED)
    waiting(model, *TRAIN[20:35])
    waiting(model, *TRAIN[35:40])
    another = waiting(model, *TRAIN[40:45], objective=Objective.REMOVE_CLASS)
    gone = waiting(model, TRAIN[45], former=1)

    unlearn_model(bench)

    job, version, _, _ = outcome(bench)
    assert (job.mode, version.mode) == (Mode.EXACT, Mode.EXACT)
    assert job.mode_reason.startswith("The model is retrained: 3 requests wait, a retraining")
    assert version.figures["drift"]["trained_on"] == COUNT - 40
    with sync_sessions() as session:
        served = select(func.count()).where(DeletionTarget.job_id == job.id)
        assert session.scalar(served) == 3
        open_ones = select(DeletionRequest.id).filter_by(status=RequestStatus.PENDING)
        assert set(session.scalars(open_ones)) == {another.id, gone.id}
        stored = session.get_one(Model, model.id).timings["cpu"]
    assert stored["retraining"]["measured"] == "retraining"
    assert 0 < stored["retraining"]["seconds"] < QUICK
    assert stored["retraining"]["samples"] == COUNT - 40
    assert stored["job"]["constant"] == 100.0


def test_what_waits_decides_and_stays_where_the_model_is_changed(
    model, ask, waiting, chosen, monkeypatch
):
    monkeypatch.setattr(outlook, "AT_ONCE", 1)
    model = model(250.0)
    bench = ask(model, *NAMED)
    assert chosen(bench)[0].mode is Mode.APPROXIMATE

    waiting(model, *TRAIN[20:30])
    waiting(model, *TRAIN[30:40])

    plan, forgotten = chosen(bench)
    assert (plan.mode, forgotten) == (Mode.EXACT, 40)
    assert "3 requests wait" in plan.reason
    assert "in 2 jobs" in plan.reason


def test_no_retraining_is_begun_in_the_place_of_what_an_earlier_attempt_began(
    model, ask, chosen, sync_sessions
):
    soon = {"due_at": factories.NOW + timedelta(seconds=60)}
    bench = ask(model(119.0), *NAMED, **soon)

    assert chosen(bench)[0].mode is Mode.EXACT  # overdue: the first job would be no faster
    with sync_sessions.begin() as session:
        session.add(
            JobCheckpoint(
                job_id=bench.claim.job_id, round=1, attempt=1, cycle=1, name="x", sha256="0" * 64
            )
        )

    plan, _ = chosen(bench)

    assert plan.mode is Mode.APPROXIMATE
    assert "earlier attempt" in plan.reason


def test_a_recipe_that_is_worth_too_little_does_not_hold_requests_up(model, ask, outcome, chosen):
    model = model(QUICK, recipe="learn_nothing")
    bench = ask(model, *NAMED)

    unlearn_model(bench)

    job, _, _, (first, second, *_) = outcome(bench)
    assert job.mode_reason.startswith("The model is retrained")
    assert (first.mode, first.verdict) == (Mode.EXACT, Verdict.FAIL)
    assert (second.mode, second.step) == (Mode.APPROXIMATE, Escalation.MORE_CYCLES)
    plan, _ = chosen(ask(model, *TRAIN[20:40]))
    assert plan.mode is Mode.APPROXIMATE
    assert "its last retraining failed" in plan.reason


def test_jobs_that_were_tell_what_the_next_takes(model, ask, chosen, sync_sessions):
    model = model(SLOW)
    bench = ask(model, *NAMED)
    with sync_sessions.begin() as session:
        now = session.scalar(select(func.now()))
        for seconds, mode, device in (
            (8000, Mode.APPROXIMATE, "cpu"), (6000, Mode.APPROXIMATE, "cpu"),
            (1, Mode.EXACT, "cpu"), (1, Mode.APPROXIMATE, "NVIDIA H200"),
        ):  # fmt: skip
            job = Job(
                kind=JobKind.UNLEARN, model_id=model.id, status=JobStatus.COMPLETED, attempt=1,
                started_at=now, finished_at=now + timedelta(seconds=seconds),
                environment={"device": device}, mode=Mode.EXACT,
            )  # fmt: skip
            session.add(job)
            session.flush()
            session.add(factories.tried(job, mode=mode))

    plan, _ = chosen(bench)

    assert plan.mode is Mode.EXACT
    assert "changing the model about 117 min (judged by its last 2 jobs)" in plan.reason


def test_an_estimate_foretells_what_will_share_the_job(model, waiting, bench_of, sync_sessions):
    """Three requests came in the model's first day: so 21 will, while one more waits a week."""
    model = model(590.0, batch={"window": "P7D", "max_samples": 1000})
    due, until = (factories.NOW + timedelta(days=days) for days in (20, 8))
    for first in (0, 20, 40):
        waiting(model, *TRAIN[first : first + 20], due_at=due, waits_until=until)
    kind = {"kind": JobKind.ESTIMATE, "objective": Objective.UNTRAIN_SAMPLES}
    bench = bench_of(Job(model_id=model.id, **kind))

    def reason(seconds, **policy):
        with sync_sessions.begin() as session:
            values = {"timings": timings(seconds), "policy": model.policy | policy}
            session.execute(update(Model).values(**values))
        with sync_sessions.begin() as session:
            job = session.get_one(Job, bench.claim.job_id)
            named = select(Sample.sample_id).where(Sample.sample_id.in_(TRAIN[60:70]))
            order = order_of(session, job, named, exact_asked=False)
        return choice.foreseen(bench, order, remaining=COUNT + 10).reason

    together = reason(584.0)  # and 6 seconds around it
    assert "retrained: 25 requests are answered together (21 of them expected" in together
    assert "changing the model about 9.8 min" in together  # 100 + 3 * 20 + 10 + 21 * 20 seconds
    longer = reason(585.0)
    assert longer.startswith("The model is changed: 25 requests")
    assert "about 39 more requests" in longer  # until those that wait are due
    alone = reason(7000.0, batch={"window": "PT0S"})
    assert alone.startswith("The model is changed: 4 requests wait, that takes about 2.8 min")
    assert "about 60 more requests" in alone
    usual = reason(584.0, batch={"max_samples": 1000})
    assert "25 requests are answered together" in usual  # a quarter of a month, at most a week
    for days, expected in ((2, "10 requests are answered together"), (None, "4 requests wait")):
        with sync_sessions.begin() as session:
            first = select(DeletionTarget.request_id).limit(1).scalar_subquery()
            until = None if days is None else func.now() + timedelta(days=days)
            session.execute(
                update(DeletionTarget).filter_by(request_id=first).values(waits_until=until)
            )
        assert expected in reason(584.0, batch={})


def test_registration_times_a_few_steps(registered, toy_models):
    toy_models.learn.passes = 150
    try:
        model = registered(flat_floats, recipe="learn")
    finally:
        del toy_models.learn.passes

    timed = model.timings["cpu"]
    assert timed["retraining"] | {"seconds": 0} == {
        "measured": "steps", "seconds": 0, "samples": COUNT, "passes": 150, "assumed": False,
    }  # fmt: skip
    assert 0 < timed["retraining"]["seconds"] < 60
    assert timed["job"]["constant"] > 0


@pytest.mark.parametrize("said", [None, 0, -3, "18", True, float("inf"), float("nan")])
def test_passes_that_a_recipe_does_not_say_are_assumed(module_of, said):
    def teach(model, data, *, seed):
        return model

    if said is not None:
        teach.passes = said
    module_of("toy_recipes", teach)

    assert timing._passes("toy_recipes:teach", ["toy_recipes:teach"], 50_000) == (18, True)
    assert timing._passes("toy_recipes:gone", [], 50_000) == (18, True)


def test_the_default_recipe_says_its_passes():
    assert timing._passes(recipes.DEFAULT, [], 50_000) == (18, False)
    assert timing._passes("worker.recipes:train", [], 1000) == (75, False)


class Moody(nn.Module):
    """A network that answers, and will not be trained."""

    def __init__(self, error=None):
        super().__init__()
        self.head = nn.Linear(4, 3)
        self.drop = nn.Dropout()
        self.error = error

    def forward(self, inputs):
        if self.training and self.error:
            raise self.error
        return self.head(self.drop(inputs))


def timed(network, workbench, **changes):
    """What registration would say of the model with this network."""
    rows = {"input": [[1.0, 2.0, 3.0, 4.0]] * 40, "label": [0] * 40, "split": ["train"] * 40}
    of = {"recipe": recipes.DEFAULT, "preprocessing": {}} | changes
    return timing.at_registration(
        workbench(None),
        Model(**of),
        Dataset(definition={"input_shape": [4]}),
        Network(network, head="head", prepare=lambda inputs: inputs.float()),
        pa.table(rows),
        torch.tensor([1000, 0, 0]),
    )


@pytest.mark.parametrize("error", [ValueError("no"), MemoryError()])
def test_what_cannot_be_timed_is_left_unknown(error, workbench):
    assert timed(Moody(error), workbench) is None
    assert timed(Moody(), workbench, recipe=None) is None
    assert timed(Moody(), workbench, recipe="worker.recipes:head") is None


def test_timing_leaves_the_network_and_chance_as_they_are(workbench):
    network = Moody()
    before = copy.deepcopy(network.state_dict())
    state = torch.random.get_rng_state()

    found = timed(network, workbench)

    assert found.retraining.seconds > 0
    assert (found.retraining.passes, found.retraining.samples) == (75, 1000)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(before[name], each) for name, each in network.state_dict().items())
    assert all(each.grad is None for each in network.parameters())
