"""People of whom only some samples are forgotten: the others tell the model who they are."""

from dataclasses import replace

import pytest
import torch

from domain.states import Verdict
from tests.worker.unlearning.audit.people import World, judged, world
from worker.unlearning.audit.advantage import advantage
from worker.unlearning.audit.groups import Groups
from worker.unlearning.audit.pooled import units

KNOWN = 3.0
"""How much surer a model is of somebody whom it knows by other samples."""


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """A refitted head of few steps is enough for two features."""
    monkeypatch.setattr("worker.unlearning.audit.by_reference.ITERATIONS", 8)


def in_part(people, *who):
    """The same people, of some of whom other samples stay in training."""
    known = torch.isin(people.groups.forget, torch.tensor(who))
    return replace(people, groups=replace(people.groups, in_part=known))


def observed(people: World, memory: float, of_known: float):
    """A network that remembers so much of all, or of those it knows by other samples."""
    every, shown = people.observed(memory), people.observed(of_known)
    mine = ~people.groups.whole[:, None]
    forget = replace(
        every.forget,
        features=torch.where(mine, shown.forget.features, every.forget.features),
        logits=torch.where(mine, shown.forget.logits, every.forget.logits),
    )
    return replace(every, forget=forget)


@pytest.mark.parametrize("references", [True, False])
@pytest.mark.parametrize(("forget", "holdout"), [([30] * 5, [30] * 12), ([1] * 60, [1] * 90)])
def test_a_model_that_knows_them_by_the_rest_does_not_fail_and_is_told_what_to_do(
    forget, holdout, references
):
    people = world(forget, holdout)
    told = people.references() if references else None
    before, after = people.observed(KNOWN + 1), people.observed(KNOWN)
    assert judged(before, after, people, told).fails

    found = judged(before, after, in_part(people, *range(len(forget))), told)

    assert (found.fails, found.has_power, found.tests) == (False, False, ())
    assert f"of {len(forget)} of the {len(forget)} forgotten groups other samples" in found.reason
    assert "name the groups as `subjects`" in found.reason
    assert "exact retraining" in found.reason


@pytest.mark.parametrize("references", [True, False])
@pytest.mark.parametrize(
    ("memory", "of_known", "outcome"),
    [(0.0, KNOWN, Verdict.PASS), (KNOWN, KNOWN, Verdict.FAIL), (KNOWN, 0.0, Verdict.FAIL)],
    ids=["forgotten", "nothing forgotten", "others forgotten"],
)
def test_those_who_are_named_whole_are_judged_as_if_the_others_were_not_there(
    memory, of_known, outcome, references
):
    people = in_part(world([30] * 5, [30] * 40), 4)
    told = people.references() if references else None

    found = judged(observed(people, KNOWN, KNOWN), observed(people, memory, of_known), people, told)

    assert Verdict.of(fails=found.fails, has_power=found.has_power) is outcome
    assert "30 of 150 forget samples are not judged" in found.reason
    assert {test.forget_samples for test in found.tests} == {120}


def test_a_few_who_are_judged_are_no_success_for_many_who_are_not():
    people = in_part(world([30] * 5, [30] * 40), 0, 1, 2)

    found = judged(observed(people, KNOWN, KNOWN), observed(people, 0.0, KNOWN), people)

    assert (found.fails, found.has_power) == (False, False)
    assert "most samples (90 of 150) are not judged" in found.reason


def test_guesses_about_them_and_the_pool_leave_them_out():
    people = in_part(world([30] * 5, [30] * 40), 0, 3)
    shown = people.observed(KNOWN)
    losses, others = shown.forget.losses(), shown.holdout.losses()
    mine = (losses, shown.forget.labels, others, shown.holdout.labels)

    guesses = advantage(*mine, groups=people.groups)
    pool = units(*mine, people.groups)

    whole = people.groups.whole
    assert replace(guesses, in_part=0) == advantage(
        losses[whole], mine[1][whole], *mine[2:], groups=people.groups.of_whole()
    )
    assert (guesses.in_part, guesses.forgotten, guesses.pairs) == (60, 3, 3)
    assert [unit is None for unit in pool] == [True, False, False, True, False]


def test_whoever_is_known_by_one_sample_is_known_by_all():
    with pytest.raises(ValueError, match="the same of all forget samples of a group"):
        Groups(
            forget=torch.tensor([1, 1, 2]),
            holdout=torch.tensor([3]),
            in_part=torch.tensor([True, False, False]),
        )
