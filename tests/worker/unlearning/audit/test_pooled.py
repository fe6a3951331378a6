"""Many requests that say nothing alone: together they say what is still known."""

import pytest
import torch

from worker.unlearning.audit.groups import Groups
from worker.unlearning.audit.pooled import judge, units

CLASSES = 4
UNSEEN = 400


def requests(count, *, shift, generator, spread=0.0):
    """The units of so many jobs of one sample each. All compare with the same unseen samples, and
    each with a network of its own, which finds other samples hard."""
    labels = torch.arange(UNSEEN) % CLASSES
    hardness = torch.randn(UNSEEN, generator=generator)
    found = []
    for number in range(count):
        label = torch.tensor([number % CLASSES])
        noise = spread * torch.randn(UNSEEN, generator=generator)
        mine = torch.randn(1, generator=generator) * (1 + spread**2) ** 0.5 - shift
        found += units(mine.double(), label, (hardness + noise).double(), labels)
    return found


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(11)


def test_three_hundred_requests_of_one_sample_have_power_where_each_alone_has_none(generator):
    known = requests(300, shift=0.6, generator=generator)
    forgotten = requests(300, shift=0.0, generator=generator)

    alone = [
        judge([after], [before]).verdict for after, before in zip(known[:20], known, strict=False)
    ]
    assert set(alone) == {"no_power"}
    assert judge(known, known).verdict == "fail"
    assert judge(known, known).pairs == 300
    assert judge(forgotten, known).verdict == "pass"
    assert judge(forgotten, forgotten).verdict == "no_power"


def test_what_was_forgotten_too_much_is_told_apart_as_well(generator):
    known = requests(300, shift=0.8, generator=generator)

    found = judge(requests(300, shift=-0.8, generator=generator), known)

    assert found.verdict == "fail"
    assert found.high < 0.5


@pytest.mark.parametrize("spread", [0.0, 1.0])
def test_what_was_never_seen_seldom_fails_though_all_jobs_share_one_hold_out(spread, generator):
    found = [
        judge(known, known).verdict
        for known in (requests(40, shift=0, spread=spread, generator=generator) for _ in range(25))
    ]

    assert found.count("fail") <= 1


def test_without_power_it_says_how_much_would_give_it(generator):
    [one] = requests(1, shift=0.5, generator=generator)

    found = judge([one], [one])

    assert found.p_value == 1
    assert (found.low, found.high) == pytest.approx((0, 1), abs=0.02)
    assert found.reason.startswith("1 pair of forgotten and unseen")
    assert "About 177 pairs would tell 60 right guesses in 100 from chance" in found.reason
    assert "more requests, or more hold-out samples" in found.reason


def test_no_unit_is_no_power_and_no_error():
    found = judge([], [])

    assert (found.verdict, found.observed, found.pairs) == ("no_power", None, 0)


def test_more_forgotten_than_unseen_samples_rest_on_the_unseen_ones(generator):
    labels = torch.zeros(200, dtype=torch.int64)
    few = torch.randn(10, generator=generator).double()

    found = units(torch.full((200,), -9.0).double(), labels, few, labels[:10])

    assert judge(found, found).pairs == 10


def test_a_group_counts_once_and_unseen_groups_by_their_precision():
    labels = torch.zeros(60, dtype=torch.int64)
    forget, holdout = torch.arange(60) // 20, 100 + (torch.arange(60) >= 10).long()
    losses = torch.linspace(0, 1, 60).double()

    found = units(losses, labels, losses, labels, Groups(forget=forget, holdout=holdout))

    assert [unit.samples for unit in found] == [20, 20, 20]
    assert {unit.peers for unit in found} == {1}  # groups of 10 and 50
    assert judge(found, found).pairs == 1


def test_classes_without_unseen_samples_are_left_out():
    labels = torch.tensor([0, 1, 1])
    losses = torch.zeros(3).double()

    found = units(losses, labels, losses[:1], labels[:1])

    assert [unit and (unit.label, unit.share) for unit in found] == [(0, 0.5), None, None]
