"""Retraining: on request, when it is cheaper, and after much drift."""

from dataclasses import replace

import numpy as np
import pytest
from sqlalchemy import func, select

from domain.errors import JobError
from domain.states import Mode, RequestStatus, Verdict, VersionStatus
from domain.tables import DeletionTarget, VerdictTest
from tests import factories
from tests.worker.jobs.unlearn.digit_models import (
    COUNT,
    NAMED,
    PARTS,
    PIXELS,
    TRAIN,
    flat_floats,
    learn,
)
from worker.data import version_statistics
from worker.jobs.unlearn.job import unlearn_model
from worker.unlearning.audit.verdict import audit


def test_an_exact_request_is_trained_on_all_that_stays(
    registered, ask, outcome, toy_models, monkeypatch
):
    seen = []

    def remember(model, data, *, seed):
        seen.extend(tuple(data[index][0].tolist()) for index in range(len(data)))
        return learn(model, data, seed=seed)

    monkeypatch.setattr(toy_models, "learn", remember)
    model = registered(flat_floats, recipe="learn")
    unlearn_model(ask(model, *NAMED[:5]))

    bench = ask(model, *NAMED[5:], exact=True)
    unlearn_model(bench)

    job, version, _, (tried,) = outcome(bench)
    assert (job.mode, tried.mode, version.mode) == (Mode.EXACT, Mode.EXACT, Mode.EXACT)
    assert job.config == {"recipe": "toy_models:learn", "seed": job.id.int % 2**31}
    assert "a request asks for it" in job.mode_reason
    staying = [n for n in range(COUNT) if PARTS[n] == "train" and f"digit-{n}" not in NAMED]
    assert sorted(seen) == sorted(tuple((PIXELS[n] / 16).astype(np.float32)) for n in staying)
    known = version_statistics.read(bench.store, version.statistics_sha256)
    assert int(known.class_counts.sum()) == known.moments.count == len(staying)


def test_one_exact_request_makes_the_job_exact_for_all_that_share_it(
    registered, ask, outcome, sync_sessions
):
    model = registered(flat_floats, recipe="learn")
    with sync_sessions.begin() as session:
        dataset = factories.dataset(id=model.dataset_id)
        other = factories.request(dataset)
        session.add(other)
        session.flush()
        session.add(factories.target(other, model))
        session.add_all(factories.request_samples(other, TRAIN[30]))

    bench = ask(model, *NAMED, exact=True)
    unlearn_model(bench)

    job, version, _, _ = outcome(bench)
    assert (job.mode, version.mode) == (Mode.EXACT, Mode.EXACT)
    with sync_sessions() as session:
        of_job = select(func.count()).where(DeletionTarget.job_id == job.id)
        assert session.scalar(of_job) == 2
    assert version.figures["drift"]["trained_on"] == len(TRAIN) - len(NAMED) - 1


def test_a_retraining_is_served_whatever_the_tests_say(
    registered, ask, outcome, sync_sessions, monkeypatch
):
    """No audit is right each time, and the version left in service would know the samples."""

    def strict(*shown, **given):
        found = audit(*shown, **given)
        tests = tuple(replace(test, passed=False) for test in found.tests)
        guards = tuple(replace(test, passed=True) for test in found.guards)
        return replace(found, fails=True, reason="It fails.", tests=tests, guards=guards)

    monkeypatch.setattr("worker.jobs.unlearn.rounds.audit", strict)
    bench = ask(registered(flat_floats, recipe="learn"), *NAMED, exact=True)

    unlearn_model(bench)

    job, version, request, (tried,) = outcome(bench)
    assert (job.verdict, tried.verdict) == (Verdict.PASS, Verdict.PASS)
    assert version.status is VersionStatus.CHAMPION
    assert request.status is RequestStatus.COMPLETED
    assert "they do not decide" in tried.reason
    assert "It fails." in tried.reason
    with sync_sessions() as session:
        after = select(VerdictTest.passed).filter_by(job_id=job.id, moment="after")
        assert set(session.scalars(after)) == {False}


def test_a_poor_recipe_gets_no_better_verdict(registered, ask, outcome):
    bench = ask(registered(flat_floats, recipe="learn_nothing"), *NAMED, exact=True)

    unlearn_model(bench)

    job, version, _, (tried,) = outcome(bench)
    assert job.verdict is Verdict.FAIL
    assert "accuracy" in tried.reason
    assert (version.status, version.mode) == (VersionStatus.CANDIDATE, Mode.EXACT)


def test_a_recipe_gives_back_the_network_it_was_given(registered, ask):
    model = registered(flat_floats, recipe="learn_as_another")

    with pytest.raises(JobError, match=r"learn_as_another.* another network"):
        unlearn_model(ask(model, *NAMED, exact=True))


MOST = TRAIN[: int(0.6 * len(TRAIN))]


def test_most_of_the_data_is_forgotten_by_training_anew(registered, ask, outcome):
    bench = ask(registered(flat_floats, recipe="learn"), *MOST)

    unlearn_model(bench)

    job, version, _, _ = outcome(bench)
    assert version.mode is Mode.EXACT
    assert "60%" in job.mode_reason


def test_without_a_recipe_most_of_the_data_cannot_be_forgotten(registered, ask):
    with pytest.raises(JobError, match=r"retraining is cheaper .* `recipe`"):
        unlearn_model(ask(registered(flat_floats), *MOST))


DRIFT = {"max_forgotten_share": 0.1, "max_accuracy_drop": 1.0}


def test_drift_adds_up_until_the_model_is_trained_anew(registered, ask, outcome):
    model = registered(flat_floats, recipe="learn", drift=DRIFT)
    versions = []
    for start in (0, 8, 16, 24):
        bench = ask(model, *TRAIN[start : start + 8])
        unlearn_model(bench)
        versions.append(outcome(bench)[1])

    forgotten = [(v.mode, v.figures["drift"]["forgotten"]) for v in versions]
    assert forgotten == [
        (Mode.APPROXIMATE, 8), (Mode.APPROXIMATE, 16), (Mode.EXACT, 0), (Mode.APPROXIMATE, 8),
    ]  # fmt: skip
    last = versions[-1].figures["drift"]
    assert (last["since_version"], last["trained_on"]) == (4, len(TRAIN) - 24)


def test_drift_without_a_recipe_is_said_with_the_result(registered, ask, outcome):
    bench = ask(registered(flat_floats, drift=DRIFT), *NAMED)

    unlearn_model(bench)

    job, version, _, _ = outcome(bench)
    assert version.mode is Mode.APPROXIMATE
    assert "beyond its policy's drift limits" in job.mode_reason
