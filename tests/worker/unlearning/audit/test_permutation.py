from itertools import combinations

import pytest
import torch

from tests.worker.unlearning.audit.synthetic import seeded
from worker.unlearning.audit.permutation import contrast, max_t, ranks, residuals, shuffles


def nothing(count):
    return torch.zeros(count, 0, dtype=torch.float64)


def test_the_contrast_is_a_difference_of_means_in_the_mix_of_the_first_group():
    strata = torch.tensor([0, 0, 0, 1, 1, 1])
    mine = torch.tensor([True, True, False, True, False, False])
    score = torch.tensor([1.0, 3.0, 5.0, 7.0, 2.0, 4.0]).double()

    weights = contrast(mine, strata, nothing(6))

    mean, others = (1 + 3 + 7) / 3, (2 * 5 + 1 * (2 + 4) / 2) / 3
    assert (weights @ score).item() == pytest.approx(mean - others)


def test_covariates_take_out_what_they_explain():
    covariates = torch.randn(60, 2, generator=seeded()).double()
    strata, mine = torch.arange(60) % 3, covariates[:, 0] + torch.arange(60) / 60 > 0.5
    score = covariates @ torch.tensor([2.0, -1.0]).double() + strata + 0.25 * mine

    assert (contrast(mine, strata, covariates) @ score).item() == pytest.approx(0.25)
    assert (contrast(mine, strata, nothing(60)) @ score).item() > 1


def test_groups_that_covariates_separate_are_not_compared():
    mine = torch.tensor([True, True, False, False])
    weights = contrast(mine, torch.zeros(4).long(), mine.double()[:, None])
    assert (weights == 0).all()


def test_residuals_are_those_of_least_squares():
    covariates = torch.randn(40, 2, generator=seeded()).double()
    values, strata = torch.randn(40, generator=seeded(1)).double(), torch.arange(40) % 3
    design = torch.cat([torch.eye(3).double()[strata], covariates], 1)

    fitted = design @ torch.linalg.lstsq(design, values).solution

    torch.testing.assert_close(residuals(values, strata, covariates), values - fitted)


def test_a_covariate_that_says_nothing_or_says_it_twice_changes_nothing():
    one = torch.randn(30, 1, generator=seeded()).double()
    values, strata = torch.randn(30, generator=seeded(1)).double(), torch.arange(30) % 2

    twice = torch.cat([one, 3 * one, torch.ones(30, 1).double()], 1)

    torch.testing.assert_close(residuals(values, strata, twice), residuals(values, strata, one))


def test_ranks_stay_within_strata_and_ties_share_theirs():
    values = torch.tensor([5.0, 1.0, 1.0, 9.0, 8.0])
    strata = torch.tensor([0, 0, 0, 1, 1])
    expected = torch.tensor([3 / 3, 1.5 / 3, 1.5 / 3, 2 / 2, 1 / 2]).double()
    torch.testing.assert_close(ranks(values, strata), expected)


def test_shuffles_start_with_the_observed_order_and_never_leave_a_stratum():
    strata = torch.tensor([0, 1, 0, 1, 1, 2])

    places = torch.cat(list(shuffles(strata, 500, seeded())))

    assert places.shape == (500, 6)
    assert places[0].tolist() == [0, 1, 2, 3, 4, 5]
    assert (strata[places] == strata).all()
    assert (places.sort(1).values == torch.arange(6)).all()
    assert len({tuple(row) for row in places.tolist()}) == 2 * 6


def test_chunks_change_nothing_but_the_memory(monkeypatch):
    strata = torch.arange(50) % 2
    monkeypatch.setattr("worker.unlearning.audit.permutation.CHUNK", 500)
    chunks = list(shuffles(strata, 101, seeded()))
    assert [len(chunk) for chunk in chunks] == [10] * 10 + [1]


def test_p_values_are_those_of_all_permutations_counted_one_by_one():
    score = torch.tensor([3.1, 2.2, 2.9, 0.5, 1.5, 0.1, 2.5, 2.4]).double()
    mine = torch.arange(8) < 3
    weights = contrast(mine, torch.zeros(8).long(), nothing(8))

    rows = torch.cat(
        [weights[p] @ score for p in shuffles(torch.zeros(8).long(), 20_001, seeded())]
    )
    p_value = max_t(rows[:, None], torch.zeros(1).double(), 0.05).p_value.item()

    total, observed = score.sum().item(), abs((weights @ score).item())
    sums = [score[list(chosen)].sum().item() for chosen in combinations(range(8), 3)]
    extreme = [abs(s / 3 - (total - s) / 5) >= observed - 1e-9 for s in sums]
    assert p_value == pytest.approx(sum(extreme) / len(extreme), abs=0.012)


def test_max_t_standardises_and_adjusts_for_the_family():
    statistics = torch.tensor([[2.0, 30.0], [-1.0, -10.0], [1.0, 10.0], [0.0, -10.0]]).double()
    first, second = (statistics.square().mean(0).sqrt()).tolist()

    found = max_t(statistics, torch.zeros(2).double(), 0.25)

    assert found.deviation.tolist() == pytest.approx([first, second])
    assert found.p_value.tolist() == [0.25, 0.25]
    limit = max(1 / first, 10 / second)  # the second largest of the four maxima
    assert found.threshold.tolist() == pytest.approx([limit * first, limit * second])


def test_statistics_that_never_change_are_never_significant():
    still = max_t(torch.zeros(10, 2).double(), torch.zeros(2).double(), 0.05)

    assert still.p_value.tolist() == [1, 1]
    assert still.threshold.tolist() == [0, 0]
