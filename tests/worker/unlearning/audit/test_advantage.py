"""The share of right guesses that the data do not exclude: seldom too low, and never comforting."""

import math

import pytest
import torch

from worker.unlearning.audit.advantage import advantage, upper_bound
from worker.unlearning.audit.groups import Groups

CLASSES = 3
PATIENCE = 60
"""Repetitions of a simulation."""


def people(count, size, shift, spread, generator):
    """Losses and labels of groups: some classes are harder than others, and some groups."""
    labels = torch.randint(CLASSES, (count, size), generator=generator)
    own = spread * torch.randn(count, 1, generator=generator)
    losses = 3.0 * labels + own + torch.randn(count, size, generator=generator) - shift
    return losses.double().flatten(), labels.flatten()


def of_people(forgotten, unseen, size, *, shift=0.0, spread=0.0, generator):
    mine = people(forgotten, size, shift, spread, generator)
    theirs = people(unseen, size, 0.0, spread, generator)
    codes = torch.arange(forgotten + unseen).repeat_interleave(size)
    groups = Groups(forget=codes[: forgotten * size], holdout=codes[forgotten * size :])
    return advantage(*mine, *theirs, groups=groups)


def truth(shift, spread):
    """The chance that a sample of the first group has a lower loss than one of the second."""
    return 0.5 * (1 + math.erf(shift / 2 / math.sqrt(1 + spread**2)))


@pytest.mark.parametrize(
    ("forgotten", "unseen", "size", "shift", "spread"),
    [
        (40, 60, 1, 0.6, 0.0),
        (60, 20, 1, -0.5, 0.0),
        (4, 8, 12, 6.0, 3.0),
        (3, 20, 10, 4.0, 2.0),
    ],
    ids=["samples", "over-forgotten, few unseen", "few groups", "groups, few forgotten"],
)
def test_the_truth_is_seldom_above_the_bound(forgotten, unseen, size, shift, spread):
    generator = torch.Generator().manual_seed(7)
    share = truth(abs(shift), spread)

    too_low = sum(
        of_people(forgotten, unseen, size, shift=shift, spread=spread, generator=generator).bound
        < share
        for _ in range(PATIENCE)
    )

    assert too_low <= 0.05 * PATIENCE


@pytest.mark.parametrize("size", [1, 150])
@pytest.mark.parametrize(("forgotten", "unseen"), [(1, 400), (400, 1)])
def test_one_sample_or_one_group_excludes_nothing(forgotten, unseen, size):
    generator = torch.Generator().manual_seed(3)
    size = size if forgotten + unseen < 300 or size == 1 else 5

    found = of_people(forgotten, unseen, size, generator=generator)

    assert found.pairs == 1
    assert found.bound > 0.99


def test_samples_of_one_group_count_once():
    generator = torch.Generator().manual_seed(4)
    mine, theirs = (people(n, 30, 0.0, 2.0, generator) for n in (5, 8))

    grouped = advantage(
        *mine,
        *theirs,
        groups=Groups(forget=torch.arange(150) // 30, holdout=100 + torch.arange(240) // 30),
    )

    assert (grouped.pairs, grouped.forgotten, grouped.grouped) == (5, 5, True)
    assert advantage(*mine, *theirs).bound < 0.75 < grouped.bound


def test_many_samples_exclude_all_but_a_few_guesses():
    generator = torch.Generator().manual_seed(5)

    found = of_people(1000, 2000, 1, generator=generator)

    assert 0.5 < found.bound < 0.55


def test_a_higher_loss_tells_as_much_as_a_lower_one():
    labels = torch.zeros(50, dtype=torch.int64)
    low, high = torch.linspace(0, 1, 50).double(), torch.linspace(0.5, 1.5, 50).double()

    one, other = (advantage(a, labels, b, labels) for a, b in ((low, high), (high, low)))

    assert one.bound == pytest.approx(other.bound)
    assert one.observed == pytest.approx(1 - other.observed)


def test_a_class_is_compared_with_itself_and_ties_are_chance():
    labels = torch.arange(60) % CLASSES
    losses = 5.0 * labels.double()

    assert advantage(losses, labels, losses, labels).observed == 0.5


def test_without_a_pair_nothing_is_excluded():
    one, other = torch.zeros(4, dtype=torch.int64), torch.ones(4, dtype=torch.int64)
    losses = torch.rand(4).double()

    found = advantage(losses, one, losses, other)

    assert (found.bound, found.observed, found.pairs) == (1.0, None, 0)


def test_the_bound_of_a_share_errs_at_its_rate_for_coins():
    for pairs in (1, 2, 12):
        for chance in (0.55, 0.8, 0.97):
            counts = torch.arange(pairs + 1).double()
            chances = torch.distributions.Binomial(pairs, chance).log_prob(counts).exp()
            low = [upper_bound(n / pairs, pairs) < chance for n in range(pairs + 1)]
            assert chances[torch.tensor(low)].sum() <= 0.05


def test_the_figures_of_the_documentation_are_what_such_sets_give():
    told = {pairs: math.ceil(100 * upper_bound(0.5, pairs)) for pairs in (1000, 100, 10, 1)}

    assert told == {1000: 54, 100: 61, 10: 83, 1: 100}
