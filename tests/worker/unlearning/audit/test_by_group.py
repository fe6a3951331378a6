"""The audit of people: whose model never saw them passes, and one that remembers them does not."""

from dataclasses import replace

import pytest
import torch

from tests.worker.unlearning.audit.people import COUNTS, judged, world
from tests.worker.unlearning.audit.synthetic import COUNTS as FOUR
from tests.worker.unlearning.audit.synthetic import observed
from worker.unlearning.audit import by_group
from worker.unlearning.audit.family import ALPHA
from worker.unlearning.audit.groups import Groups, Units
from worker.unlearning.audit.student import quantile, two_sided
from worker.unlearning.audit.verdict import exchangeability

ONE, FIVE, FIFTY = [150], [30] * 5, [3] * 50
RUNS = 15
MOST = RUNS * ALPHA + 3 * (RUNS * ALPHA * (1 - ALPHA)) ** 0.5


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """A refitted head of few steps is enough for two features."""
    monkeypatch.setattr("worker.unlearning.audit.by_reference.ITERATIONS", 8)


def rejections(forget, holdout, *, memory=0.0, references=False, runs=RUNS, **changes):
    """How many of so many models, each with people of its own, are rejected."""
    found = 0
    for seed in range(runs):
        people = world(forget, holdout, seed=seed, **changes)
        family = exchangeability(
            people.observed(memory),
            class_counts=COUNTS,
            groups=people.groups,
            references=people.references() if references else None,
            permutations=99,
        )
        found += family.rejected
    return found


@pytest.mark.parametrize(("forget", "holdout"), [
    (ONE, [120] * 2), (FIVE, [30] * 6), (FIFTY, [3] * 60), ([2, 9, 40], [1] * 50 + [30] * 3),
])  # fmt: skip
def test_with_references_people_whom_a_model_never_saw_are_seldom_rejected(forget, holdout):
    assert rejections(forget, holdout, references=True) <= MOST


@pytest.mark.parametrize(("forget", "holdout"), [
    (ONE, [120] * 40), (FIVE, [30] * 12), (FIFTY, [3] * 60), (FIFTY, [1] * 100),
    ([150, 20, 3], [120] * 10 + [1] * 60),
])  # fmt: skip
def test_without_references_too(forget, holdout):
    assert rejections(forget, holdout) <= MOST


@pytest.mark.parametrize(("forget", "holdout", "references"), [
    (ONE, [120] * 2, True), (FIVE, [30] * 6, True), (FIFTY, [3] * 60, True),
    (FIVE, [30] * 40, False), (FIFTY, [3] * 60, False), (FIFTY, [1] * 100, False),
])  # fmt: skip
def test_people_whom_a_model_remembers_are_rejected(forget, holdout, references):
    found = rejections(forget, holdout, memory=2.5, references=references, runs=6)
    assert found >= 5


def test_one_person_beside_twelve_cannot_be_judged_without_references_and_it_says_what_would_do():
    people = world(ONE, [120] * 12)

    found = judged(people.observed(9.0), people.observed(9.0), people)

    assert (found.fails, found.has_power) == (False, False)
    assert "33 hold-out groups would do, or eight reference models" in found.reason
    assert "from 12 hold-out groups" in found.reason


@pytest.mark.parametrize("references", [True, False])
def test_a_model_retrained_without_hard_people_does_not_fail(references):
    people = world(FIVE, [30] * 40, harder=4.0)
    told = people.references() if references else None

    found = judged(people.observed(memory=9.0), people.observed(), people, told)

    assert not found.fails
    assert found.has_power == references
    assert references or "need not come from training" in found.reason


def test_people_who_differ_but_for_training_are_no_success_either():
    people = world(FIVE, [30] * 40)

    hidden = judged(people.observed(4.0), people.observed(-4.0), people)

    assert (hidden.fails, hidden.has_power) == (False, False)
    assert any(not test.passed for test in hidden.tests)


def test_with_references_answers_far_below_what_unseen_people_get_fail():
    people = world(FIVE, [30] * 6)
    references = people.references()
    assert judged(people.observed(4.0), people.observed(-4.0), people, references).fails


def test_a_model_without_a_class_is_not_as_sure_of_it_as_reference_models_and_need_not_be():
    people = world(FIVE, [30] * 6)
    people = replace(people, labels=torch.ones_like(people.labels))
    told = {"references": people.references(), "groups": people.groups}
    less, more = people.observed(-4.0), people.observed(4.0)

    assert exchangeability(less, class_counts=COUNTS, **told).rejected
    for shown, rejected in ((less, False), (more, True)):
        family = exchangeability(shown, class_counts=COUNTS * torch.tensor([1, 0]), **told)
        assert family.rejected is rejected


def test_a_head_that_hides_what_the_features_remember_fails():
    people = world(FIVE, [30] * 6)

    found = judged(
        people.observed(3.0), people.observed(0.0, features=3.0), people, people.references()
    )

    assert found.fails
    assert "refitted head" in found.reason
    assert "by reference models (" not in found.reason


def test_reference_models_that_have_seen_parts_of_people_are_not_asked():
    people = world(FIVE, [30] * 40)

    found = judged(
        people.observed(3.0), people.observed(), people, people.references(by_sample=True)
    )

    assert "membership_per_group" not in {test.name for test in found.tests}
    assert "halves of samples" in found.reason


def test_two_reference_models_cannot_tell_and_it_says_how_many_would():
    people = world(ONE, [120] * 2)

    found = judged(people.observed(3.0), people.observed(), people, people.references(2))

    assert (found.fails, found.has_power) == (False, False)
    assert "eight would do" in found.reason


def test_references_without_the_scores_of_each_model_are_not_asked():
    people = world(FIVE, [30] * 40)
    every = people.references()
    kept = ("forget_mean", "forget_std", "holdout_mean", "holdout_std")
    old = type(every)(**{name: getattr(every, name) for name in kept})

    found = judged(people.observed(3.0), people.observed(), people, old)

    assert "train them anew" in found.reason


def test_samples_that_are_all_their_own_groups_are_judged_as_before():
    people = world([1] * 40, [1] * 80)
    observed = people.observed(1.0)

    alone = exchangeability(observed, class_counts=COUNTS, permutations=99)
    grouped = exchangeability(observed, class_counts=COUNTS, permutations=99, groups=people.groups)

    assert alone == grouped


def units(forget, holdout):
    codes = torch.repeat_interleave(
        torch.arange(len(forget) + len(holdout)), torch.tensor([*forget, *holdout])
    )
    mine = torch.arange(len(codes)) < sum(forget)
    return Units.of(codes, mine, ALPHA, torch.Generator().manual_seed(0))


def test_few_ways_are_counted_once_each():
    (every,) = units([3, 3], [3] * 7).shuffles(200, torch.Generator())

    assert len({tuple(row) for row in every.tolist()}) == len(every) == 36
    assert every[0].tolist() == [True] * 2 + [False] * 7
    assert (every.sum(1) == 2).all()


def test_people_change_places_with_people_of_like_size():
    apart = units([100, 1], [90] * 40 + [1] * 40)
    assert apart.orders == 41 * 41
    for rows in apart.shuffles(100, torch.Generator().manual_seed(0)):
        assert (rows[:, [0, *range(2, 42)]].sum(1) == 1).all()


def test_where_none_is_as_large_a_random_part_is_compared():
    thinned = units([100], [1] * 40)

    assert (thinned.members == 0).sum() == 1
    assert thinned.orders == 41


def test_thousands_of_people_have_more_ways_than_a_float_can_hold():
    assert by_group._lacking(units([2] * 800, [2] * 800)) is None


def test_a_class_of_few_samples_is_no_part_of_f1_and_nmi():
    rare = torch.arange(60) % 3
    rare[rare == 2] = 0
    rare[0] = 3
    shown = observed(labels=rare, holdout=200)

    found = exchangeability(shown, class_counts=FOUR, permutations=99)

    assert "probe_nmi" in {test.name for test in found.tests}
    assert "fewer than 5 samples on a side are no part of F1 and NMI: 1" in " ".join(found.remarks)


def test_a_group_on_both_sides_is_refused():
    with pytest.raises(ValueError, match="leave their hold-out samples out"):
        Groups(forget=torch.tensor([1, 2]), holdout=torch.tensor([2, 3]))


def test_students_distribution_is_that_of_the_tables():
    assert two_sided(2.228, 10) == pytest.approx(0.05, abs=1e-4)
    assert quantile(0.05, 1) == pytest.approx(12.706, abs=1e-2)
    assert quantile(0.02, 17) == pytest.approx(2.567, abs=1e-3)
