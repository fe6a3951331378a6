"""One retraining, or jobs that change the model: what is cheaper, and what is said of it."""

from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from domain.drift import Drift
from domain.errors import JobError
from domain.policy import Escalation, Policy
from domain.states import Mode
from domain.training_time import Measured, TrainingTime, noted, of_device
from worker.jobs.unlearn import plan as planning
from worker.jobs.unlearn.cheaper import Outlook, span
from worker.jobs.unlearn.job_time import JobTime, foreseen

JOB = JobTime(constant=60.0, per_sample=0.1, basis="its last 12 jobs")
RETRAINING = TrainingTime(Measured.RETRAINING, seconds=1080.0, samples=50_000)


def outlook(**changes):
    values = {
        "requests": 41, "samples": 30_600, "max_samples": 10_000, "job": JOB,
        "retraining": RETRAINING, "remain": 50_000, "left": 1e6, "limit": 21_600,
    }  # fmt: skip
    return Outlook(**values | changes)


def plan(seen, *, mode="auto", recipe="a:b", forget=20, **more):
    return planning.plan(
        Policy(mode=mode),
        Drift(since_version=1, trained_on=60_000, forgotten=0, accuracy_change=0.0),
        exact_asked=more.pop("exact_asked", False),
        recipe=recipe,
        forget=forget,
        remaining=60_000,
        outlook=seen,
        **more,
    )


def test_the_cheaper_way_is_chosen_and_said():
    exact = plan(outlook())

    assert (exact.mode, exact.steps) == (
        Mode.EXACT, (None, Escalation.MORE_CYCLES, Escalation.STRONGER),
    )  # fmt: skip
    assert [*map(exact.mode_of, exact.steps)] == [Mode.EXACT, *[Mode.APPROXIMATE] * 2]
    assert exact.reason == (
        "The model is retrained: 41 requests wait, a retraining takes about 18 min (judged by the "
        "last retraining), and changing the model, in 4 jobs, about 55 min (judged by its last 12 "
        "jobs)."
    )
    changed = plan(outlook(requests=1, samples=20))
    assert changed.mode is Mode.APPROXIMATE
    assert changed.reason == (
        "The model is changed: 1 request waits, that takes about 62 s (judged by its last 12 "
        "jobs), and a retraining about 18 min (judged by the last retraining)."
    )


def test_a_tie_goes_to_the_retraining():
    as_long = replace(RETRAINING, seconds=3300.0)

    assert outlook(retraining=as_long).retrains
    assert not outlook(retraining=replace(as_long, seconds=3300.1)).retrains
    assert not outlook(retraining=as_long, around=1.0).retrains  # it looks at the model, too


def test_a_retraining_is_over_in_time_or_as_soon_as_the_first_job():
    assert outlook(left=1080.0).retrains
    for late in (outlook(left=1079.0), outlook(limit=1079.0)):
        assert plan(late).mode is Mode.APPROXIMATE
        assert "not be over by the earliest due date" in plan(late).reason
    assert outlook(left=-5.0, samples=10_000, job=JobTime(1080.0, 0.0)).retrains


def test_without_measurements_the_model_is_changed_and_that_is_said():
    for unknown in ({"retraining": None}, {"job": None}):
        changed = plan(outlook(**unknown))
        assert changed.mode is Mode.APPROXIMATE
        assert "not measured" in changed.reason
    assert plan(None).reason == "The model is changed."
    assert plan(outlook(), recipe=None).reason == "The model is changed."


def test_what_an_earlier_attempt_began_goes_on():
    changed = plan(outlook(begun=True))

    assert changed.mode is Mode.APPROXIMATE
    assert "as an earlier attempt of the job began to" in changed.reason


def test_a_retraining_that_failed_is_not_chosen_again():
    changed = plan(outlook(failed=True, later=230, later_seconds=14_000.0))

    assert (changed.mode, changed.steps[-1]) == (Mode.APPROXIMATE, Escalation.RETRAIN)
    assert "its last retraining failed" in changed.reason
    assert "230" not in changed.reason


def test_the_policy_may_leave_no_choice():
    changed = plan(outlook(), mode="approximate")
    assert changed.mode is Mode.APPROXIMATE
    assert "its policy says `approximate`" in changed.reason
    assert plan(outlook(), mode="approximate", exact_asked=True).mode is Mode.EXACT
    assert plan(outlook(), mode="approximate", forget=40_000).mode is Mode.EXACT

    retrained = plan(outlook(samples=1), mode="exact")
    assert retrained.mode is Mode.EXACT
    assert "its policy says `exact`" in retrained.reason
    with pytest.raises(JobError, match="later state"):
        plan(outlook(), mode="exact", outdated=True)


def test_a_model_whose_dataset_moved_on_is_never_retrained_to_save_time():
    assert plan(outlook(), outdated=True).mode is Mode.APPROXIMATE


FEW = st.integers(0, 40)  # so that the two ways are often as long, or nearly
OUTLOOKS = st.builds(
    outlook,
    samples=st.integers(1, 40),
    max_samples=st.integers(1, 40),
    job=st.builds(JobTime, FEW, st.integers(0, 3)),
    retraining=st.builds(TrainingTime, st.just(Measured.STEPS), FEW, st.just(50_000)),
    around=st.integers(0, 5),
    left=st.integers(-5, 40),
    limit=st.integers(0, 80),
)


LATE = outlook(
    samples=10, max_samples=10, job=JobTime(0, 1), left=-1,
    retraining=TrainingTime(Measured.STEPS, 8, 50_000),
)  # fmt: skip
"""One more sample makes two jobs of it, the first of which is shorter."""


@settings(deadline=None)
@example(LATE, 1, 0)
@given(OUTLOOKS, FEW, FEW)
def test_the_more_waits_the_more_speaks_for_the_retraining(seen, samples, requests):
    more = replace(seen, samples=seen.samples + samples, requests=seen.requests + requests)

    assert more.retrains >= seen.retrains


@settings(deadline=None)
@given(OUTLOOKS, FEW)
def test_the_longer_it_takes_the_more_speaks_against_it(seen, seconds):
    longer = replace(seen.retraining, seconds=seen.retraining.seconds + seconds)

    assert replace(seen, retraining=longer).retrains <= seen.retrains


def test_what_comes_later_is_no_reason_but_an_advice():
    """A retraining now is of no use to it: each of a steady stream would be retrained for."""
    seen = outlook(requests=1, samples=20, later=230, later_seconds=14_000.0)

    changed = plan(seen)

    assert changed.mode is Mode.APPROXIMATE
    assert "about 230 more requests" in changed.reason
    assert "one retraining" in changed.reason
    assert plan(replace(seen, later_seconds=900.0)).reason == plan(replace(seen, later=0)).reason


def test_what_is_assumed_is_said():
    guessed = TrainingTime(Measured.STEPS, 10.0, 50_000, passes=18, assumed=True)

    reason = outlook(retraining=guessed, requests=12, expected=3).reason

    assert "an assumed 18 passes over the data" in reason
    assert "12 requests are answered together (3 of them expected" in reason


def test_a_better_figure_replaces_a_poorer_one_on_its_device_alone():
    steps, last = (TrainingTime(each, 1.0, 10) for each in (Measured.STEPS, Measured.RETRAINING))
    timings = noted({"cpu": {"job": {"constant": 1}}}, "cpu", steps)
    timings = noted(timings, "cpu", last)
    timings = noted(timings, "H200", steps)

    assert noted(timings, "cpu", steps) == timings
    assert of_device(timings, "cpu") == last
    assert of_device(timings, "H200") == steps
    assert of_device(timings, "A100") is of_device(None, "cpu") is None
    assert timings["cpu"]["job"] == {"constant": 1}
    newer = replace(last, seconds=2.0)
    assert of_device(noted(timings, "cpu", newer), "cpu") == newer


def test_time_is_in_proportion_to_the_samples():
    assert RETRAINING.on(25_000) == 540.0
    assert replace(RETRAINING, samples=0).on(25_000) == 1080.0


def test_a_job_before_any_other_takes_longer_for_more_samples():
    job = foreseen(evaluation=2.0, training=0.001, reservoir=10_000)

    assert job.constant > 4
    assert 0 < job.per_sample < 1


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "a second"), (8.6, "8.6 s"), (62, "62 s"), (1080, "18 min"), (9000, "2.5 h"),
     (400_000, "5 days")],
)  # fmt: skip
def test_times_are_told_in_units_that_fit(seconds, words):
    assert span(seconds) == words
