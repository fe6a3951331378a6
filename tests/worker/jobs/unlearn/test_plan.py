"""How a job makes its version: changed or retrained, and what follows a `fail`."""

import pytest

from domain.drift import Drift
from domain.errors import JobError
from domain.policy import DriftLimits, Escalation, Policy
from domain.states import Mode
from worker.jobs.unlearn import plan as planning

FRESH = Drift(since_version=1, trained_on=100, forgotten=0, accuracy_change=0.0)


def plan(
    policy=None, drift=FRESH, *, exact_asked=False, recipe="a:b", forget=5, remaining=100, **more
):
    return planning.plan(
        policy or Policy(),
        drift,
        exact_asked=exact_asked,
        recipe=recipe,
        forget=forget,
        remaining=remaining,
        **more,
    )


def test_a_model_whose_dataset_moved_on_is_not_retrained():
    changed = plan(drift=FRESH.further(forgotten=26), outdated=True)

    assert changed.steps == (None, Escalation.MORE_CYCLES, Escalation.STRONGER)
    assert "later state" in changed.reason
    for needed in ({"exact_asked": True}, {"forget": 51}):
        with pytest.raises(JobError, match="later state"):
            plan(**needed, outdated=True)


def test_the_policy_says_what_follows():
    first, *more = plan().steps
    assert first is None
    assert more == [Escalation.MORE_CYCLES, Escalation.STRONGER, Escalation.RETRAIN]
    assert plan(Policy(escalation=[Escalation.STRONGER])).steps == (None, Escalation.STRONGER)
    assert plan(recipe=None).steps == (None, Escalation.MORE_CYCLES, Escalation.STRONGER)


def test_only_a_retrain_is_exact_in_an_approximate_job():
    planned = plan()

    modes = [planned.mode_of(step) for step in planned.steps]

    assert modes == [Mode.APPROXIMATE] * 3 + [Mode.EXACT]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"exact_asked": True}, "asks for it"),
        ({"forget": 51}, "51%"),
        ({"drift": FRESH.further(forgotten=26)}, "drift"),
        ({"drift": FRESH.further(forgotten=0, accuracy_change=-0.06)}, "drift"),
    ],
)
def test_is_trained_anew_where_nothing_else_will_do(changes, why):
    planned = plan(**changes)

    assert (planned.mode, planned.steps) == (Mode.EXACT, (None,))
    assert why in planned.reason


@pytest.mark.parametrize(
    "changes",
    [
        {"forget": 50, "policy": Policy(drift=DriftLimits(max_forgotten_share=0.5))},
        {"drift": FRESH.further(forgotten=25)},
        {"drift": FRESH.further(forgotten=0, accuracy_change=-0.05)},
        {"drift": FRESH.further(forgotten=0, accuracy_change=0.5)},
    ],
)
def test_up_to_its_limits_the_model_is_changed(changes):
    assert plan(**changes).mode is Mode.APPROXIMATE


@pytest.mark.parametrize("changes", [{"exact_asked": True}, {"forget": 51}])
def test_without_a_recipe_it_says_how_to_get_one(changes):
    with pytest.raises(JobError, match="another name with a `recipe`"):
        plan(recipe=None, **changes)


def test_without_a_recipe_drift_is_no_obstacle_but_is_said():
    planned = plan(drift=FRESH.further(forgotten=90), recipe=None)

    assert planned.mode is Mode.APPROXIMATE
    assert "drift" in planned.reason


def test_progress_only_grows_and_ends_below_one():
    moments = [planning.progress(number, share) for number in (1, 2, 3, 4) for share in (0, 0.9)]

    assert moments == sorted(moments)
    assert moments[0] == pytest.approx(0.1)
    assert moments[-1] < 1
