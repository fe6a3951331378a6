"""Jobs on a dataset that says whose each sample is."""

from dataclasses import replace

import pytest
import torch
from sqlalchemy import select

from domain import forgetting, jobs
from domain.states import JobStatus, Objective, Verdict
from domain.tables import Evaluation, FormerSample, Job, ModelVersion, ReferenceTables, Sample
from tests.worker.jobs.unlearn.digit_models import (
    COUNT,
    PARTS,
    PEOPLE,
    flat_floats,
    training_samples,
)
from worker.data import reference_tables
from worker.jobs.unlearn import job
from worker.jobs.unlearn.inputs import read_inputs, read_order
from worker.jobs.unlearn.job import unlearn_model
from worker.unlearning.reference_models import Side, Summarised

WINDOWS = [f"person {n // 30}" for n in range(COUNT)]
"""Ten people, each in every split: what dividing the windows of recordings at random gives."""


@pytest.fixture
def inputs(sync_sessions):
    """What a job reads."""

    def read(bench):
        with sync_sessions.begin() as session:
            order = read_order(session, bench.claim.job_id)
        return read_inputs(bench, order, torch.full((10,), 100))

    return read


@pytest.fixture
def figures(sync_sessions):
    """Those of the model's first version."""

    def read(model):
        with sync_sessions.begin() as session:
            chosen = select(ModelVersion.figures).filter_by(model_id=model.id, number=1)
            return session.scalars(chosen).one()

    return read


def test_the_audit_knows_who_belongs_together(registered, ask, inputs, sync_sessions, figures):
    model = registered(flat_floats, groups=PEOPLE)
    who = training_samples(PEOPLE, "trained 3")

    found = inputs(ask(model, *who))

    assert found.groups is not None
    assert len(found.groups.forget.unique()) == 1
    assert len(found.groups.holdout) == len(found.audit) == len(found.audit_ids)
    with sync_sessions() as session:
        rows = session.execute(select(Sample.sample_id, Sample.group_digest))
        digests = {row.sample_id: row.group_digest for row in rows}
    trained = {digests[f"digit-{n}"] for n in range(COUNT) if PARTS[n] == "train"}
    audited = [digests[name] for name in found.audit_ids]
    assert len(set(audited)) == len(found.groups.holdout.unique()) == 4
    assert not set(audited) & trained
    assert len(found.calibration) == 24
    assert figures(model)["reservoir"]["holdout"] == 48
    assert "2 of the 10 hold-out groups also stand in training" in found.remarks[0]
    assert figures(model)["warnings"] == found.remarks


def test_who_is_named_in_part_is_known_by_the_rest_until_that_is_named_too(
    registered, ask, inputs, sync_sessions
):
    model = registered(flat_floats, groups=PEOPLE)
    who = [training_samples(PEOPLE, f"trained {n}") for n in (3, 4)]
    bench = ask(model, *who[0][1:], *who[1])

    found = inputs(bench)
    known = found.groups

    assert known.in_part.tolist() == [True] * (len(who[0]) - 1) + [False] * len(who[1])
    with sync_sessions.begin() as session:
        order = read_order(session, bench.claim.job_id)
    concept = replace(order, job=Job(objective=Objective.REMOVE_CLASS))
    every = found.forget.labels.bincount(minlength=10)
    assert read_inputs(bench, concept, every).groups.whole.all()
    elsewhere = replace(order, forget=order.forget[:-1], outside=frozenset([*who[0], *who[1]]))
    assert read_inputs(bench, elsewhere, torch.full((10,), 100)).groups.whole.all()
    with sync_sessions.begin() as session:
        forgetting.record_forgotten(session, job_id=bench.claim.job_id, model_id=model.id)
        jobs.complete(session, session.get_one(Job, bench.claim.job_id), actor="worker")
    rest = ask(model, who[0][0])
    assert inputs(rest).groups.whole.all()
    with sync_sessions.begin() as session:  # a row of theirs left the files, and is still known
        digest = session.scalars(select(Sample.group_digest).filter_by(sample_id=who[0][0])).one()
        row = {"dataset_id": model.dataset_id, "sample_id": "gone", "group_digest": digest}
        session.add(FormerSample(**row, since=1, removed_in=2))
    assert not inputs(rest).groups.whole.any()


def test_how_easy_somebody_is_reference_models_tell(registered, ask, inputs, sync_sessions):
    """Each network for itself where samples have groups, else what they say on average."""
    model = registered(flat_floats, groups=PEOPLE)
    bench = ask(model, *training_samples(PEOPLE, "trained 3"))
    found = inputs(bench)
    with sync_sessions.begin() as session:
        order = read_order(session, bench.claim.job_id)
        forget, unseen = order.forget_ids, [*found.calibration_ids, *found.audit_ids]
        sides = [Side(torch.zeros(n), torch.ones(n)) for n in (len(forget), len(unseen))]
        answers = torch.full((len(forget), 10), 0.1)
        scores = torch.tensor([[5.0, -5.0]]).expand(len(forget), 2)
        said = Summarised(
            answers, sides[0], sides[0], sides[1], scores, torch.zeros(len(unseen), 2)
        )
        seen = torch.tensor([[True], [False]]).expand(2, len(forget))
        reference_tables.write(session, model.id, said, seen, training=forget, holdout=unseen)
        session.add(
            ReferenceTables(model_id=model.id, job_id=bench.claim.job_id, models=2, recipe="any")
        )

    told = job._known(bench, order, found)

    assert told["references"] is not None
    assert (told["ease"] < 0.1).all()  # the second alone has not seen them
    single = job._known(bench, order, replace(found, groups=None))["ease"]
    assert single.tolist() == [0.5] * len(forget)  # as sure of each as of every unseen sample


def test_where_everybody_stands_in_training_a_job_forgets_and_claims_nothing(
    registered, ask, outcome, sync_sessions, figures
):
    """Hold-out windows of trained people would pass for people the model never saw: a network that
    forgot would fail, and one that did not would pass."""
    model = registered(flat_floats, groups=WINDOWS)

    unlearn_model(bench := ask(model, *training_samples(WINDOWS, "person 3")))

    job, version, _, (tried,) = outcome(bench)
    assert (job.status, job.verdict) == (JobStatus.COMPLETED, Verdict.NO_POWER)
    assert "10 of the 10 hold-out groups also stand in training" in tried.reason
    assert "nothing shows what the model answers to people it never saw" in tried.reason
    assert "calibrated with people who stand in training" in tried.reason
    assert figures(model)["warnings"]
    with sync_sessions() as session:
        after = session.get_one(Evaluation, (job.id, "after"))
        assert (after.holdout_accuracy, after.da_holdout, after.da_gap) == (None, None, None)
    assert version.figures["reservoir"]["holdout"] == 60 - 6  # without the person's own


def test_without_groups_each_sample_is_its_own(registered, ask, inputs):
    found = inputs(ask(registered(flat_floats), *training_samples(PEOPLE, "trained 3")))

    assert found.groups is None
    assert not found.remarks
    assert len(found.audit) + len(found.calibration) == 60
