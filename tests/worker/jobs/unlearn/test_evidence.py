"""What a job measures beside its verdict, for people to judge by."""

import torch
from sqlalchemy import select

from domain.states import Verdict, VersionStatus
from domain.tables import Evaluation
from tests.worker.jobs.unlearn.digit_models import (
    NAMED,
    PEOPLE,
    flat_floats,
    training_samples,
)
from worker.jobs.unlearn import fine_tuned
from worker.jobs.unlearn.job import unlearn_model


def figures(session, bench):
    rows = session.scalars(select(Evaluation).filter_by(job_id=bench.claim.job_id))
    return {row.moment: row.figures for row in rows}


def test_a_job_says_what_its_data_do_not_exclude_and_what_comes_back(
    registered, ask, outcome, sync_sessions
):
    bench = ask(registered(flat_floats, escalation=[], fine_tuned_steps=5), *NAMED)

    unlearn_model(bench)

    with sync_sessions() as session:
        told = figures(session, bench)
    assert told["before"]["fine_tuned"] is None
    tuned = told["after"]["fine_tuned"]
    assert tuned["steps"] == 5
    assert tuned["membership_auc_before"] == told["after"]["membership_auc"]
    assert 0 < tuned["membership_auc_after"] < 1
    for moment in ("before", "after"):
        guesses = told[moment]["advantage"]
        assert 0 < guesses["pairs"] <= guesses["forgotten"] == len(NAMED)
        assert guesses["observed"] <= guesses["bound"] <= 1
        assert not guesses["grouped"]


def test_of_people_whom_it_knows_by_other_samples_a_job_claims_nothing(
    registered, ask, outcome, sync_sessions
):
    model = registered(flat_floats, groups=PEOPLE, escalation=[], fine_tuned_steps=2)
    who = training_samples(PEOPLE, "trained 3")[1:]

    unlearn_model(bench := ask(model, *who))

    job, *_, (tried,) = outcome(bench)
    assert job.verdict is Verdict.NO_POWER
    assert "of 1 of the 1 forgotten groups other samples stay in training" in tried.reason
    with sync_sessions() as session:
        told = figures(session, bench)["after"]
    guesses = told["advantage"]
    assert (guesses["bound"], guesses["pairs"], guesses["in_part"]) == (1.0, 0, len(who))
    assert told["fine_tuned"]["membership_auc_after"] is None


def test_a_copy_that_cannot_be_trained_stops_no_job(
    registered, ask, outcome, sync_sessions, monkeypatch
):
    def no_room(*_, **__):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(fine_tuned, "fine_tuned", no_room)
    bench = ask(registered(flat_floats, escalation=[], fine_tuned_steps=5), *NAMED)

    unlearn_model(bench)

    assert outcome(bench)[1].status in (VersionStatus.CHAMPION, VersionStatus.CANDIDATE)
    with sync_sessions() as session:
        assert figures(session, bench)["after"]["fine_tuned"]["membership_auc_after"] is None
