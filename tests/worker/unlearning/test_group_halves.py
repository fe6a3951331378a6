"""Halves of groups: whole, about equal, with every class, and different from pair to pair."""

from time import perf_counter

import pytest
import torch

from worker.unlearning.reference_models import halves


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


def parts(*sizes):
    return torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))


def of_groups(seen, groups):
    """(K, G), after checking that each group is seen as a whole."""
    first = torch.stack([seen[:, groups == group][:, 0] for group in groups.unique()], 1)
    assert (seen == first[:, groups]).all()
    return first


@pytest.mark.parametrize(
    ("sizes", "least"),
    [
        ([30] * 10, 0.5),
        ([40, *[5] * 12], 0.4),
        ([60, *[1] * 40], 0.29),
        ([50, 50], 0.5),
        ([70, 30], 0.3),
        ([64, 32, 16, 8, 4, 2, 1], 0.4),
        ([150, *[1] * 500, *[30] * 5], 0.4),
    ],
)
def test_groups_are_seen_whole_and_halves_are_about_equal(sizes, least, generator):
    groups = parts(*sizes)

    seen = halves(len(groups), 8, generator, groups=groups, labels=torch.zeros_like(groups))

    of_groups(seen, groups)
    assert seen.sum(0).tolist() == [4] * len(groups)
    assert seen.float().mean(1).min() >= least


@pytest.mark.parametrize("sizes", [[30] * 4, [40, 30, 20, 10], [60, 10, 10, 10, 10], [7] * 16])
def test_no_two_groups_are_always_together(sizes, generator):
    groups = parts(*sizes)

    seen = halves(len(groups), 16, generator, groups=groups, labels=torch.zeros_like(groups))

    drawn = of_groups(seen, groups)
    assert drawn.unique(dim=1).shape[1] == len(sizes)
    assert len({tuple(row) for row in drawn.tolist()}) > (2 if len(sizes) > 2 else 1)


def test_pairs_of_networks_divide_groups_differently(generator):
    groups = parts(*[30] * 24)

    seen = halves(len(groups), 64, generator, groups=groups, labels=torch.zeros_like(groups))

    apart = (of_groups(seen, groups)[::2, :, None] != of_groups(seen, groups)[::2, None]).sum(0)
    others = apart[~torch.eye(24, dtype=torch.bool)]
    assert others.min() >= 6
    assert others.max() <= 26


def test_no_class_is_missing_from_a_half_that_could_have_it(generator):
    groups = parts(*[10] * 60)
    labels = torch.zeros_like(groups)
    for rare in range(20):  # each in two groups only, and one class in a single group
        labels[groups == 2 * rare] = labels[groups == 2 * rare + 1] = 1 + rare
    labels[groups == 59] = 30
    labels[0::10] = 0

    seen = halves(len(groups), 8, generator, groups=groups, labels=labels)

    of_groups(seen, groups)
    for half in seen:
        assert set(range(21)) <= set(labels[half].tolist())
    assert sorted(30 in labels[half] for half in seen) == [False] * 4 + [True] * 4
    assert seen.float().mean(1).min() >= 0.4


def test_samples_without_groups_are_drawn_as_ever():
    first, second = (torch.Generator().manual_seed(3) for _ in range(2))
    alone = torch.randperm(50, generator=torch.Generator().manual_seed(1))

    drawn = halves(50, 4, first, groups=alone, labels=torch.zeros(50, dtype=torch.int64))

    assert torch.equal(drawn, halves(50, 4, second))
    third = torch.Generator().manual_seed(3)  # as releases before groups did it
    assert drawn[0].nonzero().squeeze(1).tolist() == sorted(
        torch.randperm(50, generator=third)[:25].tolist()
    )


@pytest.mark.parametrize(("sizes", "message"), [([9], "one group"), ([95, 5], "95% of them")])
def test_groups_that_cannot_be_halved_are_refused(sizes, message, generator):
    groups = parts(*sizes)

    with pytest.raises(ValueError, match=message):
        halves(len(groups), 4, generator, groups=groups, labels=torch.zeros_like(groups))


def test_very_many_groups_are_divided_in_seconds(generator):
    groups = torch.randint(100_000, (300_000,), generator=generator)
    labels = torch.randint(10, (300_000,), generator=generator)
    started = perf_counter()

    seen = halves(300_000, 2, generator, groups=groups, labels=labels)

    assert perf_counter() - started < 5
    assert 0.49 < seen[0].float().mean() < 0.51
