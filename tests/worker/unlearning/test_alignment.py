import math

import pytest
import torch

from worker.unlearning.alignment import (
    Eigenspace,
    Moments,
    alignment,
    alignment_gap,
    effective_rank,
    eigenspace,
    matching_weights,
    subspace_overlap,
)


def seeded():
    return torch.Generator().manual_seed(0)


@pytest.fixture
def features():
    spread = torch.tensor([5.0, 3.0, 1.0, 0.1])
    return torch.randn(200, 4, generator=seeded()) * spread + torch.tensor([9.0, 0.0, 0.0, 1.0])


def same(left, right):
    assert left.count == pytest.approx(right.count)
    torch.testing.assert_close(left.mean, right.mean)
    torch.testing.assert_close(left.second, right.second)


def test_merged_batches_are_the_whole(features):
    same(Moments.of(features[:70]).merge(Moments.of(features[70:])), Moments.of(features))


def test_what_is_taken_out_was_never_there(features):
    same(Moments.of(features).without(features[150:]), Moments.of(features[:150]))


def test_taking_nothing_out_changes_nothing(features):
    same(Moments.of(features).without(features[:0]), Moments.of(features))


def test_not_everything_can_be_taken_out(features):
    with pytest.raises(ValueError, match="cannot take 200 samples"):
        Moments.of(features).without(features)


@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_twenty_downdates_in_sequence_are_a_recomputation(offset):
    """To 1e-6 and much better, also where the mean dwarfs the spread, as after a ReLU."""
    features = torch.randn(3000, 8, generator=seeded()) + offset
    moments = Moments.of(features)

    for start in range(0, 1000, 50):
        moments = moments.without(features[start : start + 50])

    recomputed = Moments.of(features[1000:])
    assert moments.count == recomputed.count
    for left, right in (
        (moments.mean, recomputed.mean),
        (moments.second, recomputed.second),
        (moments.covariance(), recomputed.covariance()),
    ):
        assert left.dtype is torch.float64
        assert ((left - right).norm() / right.norm()).item() < 1e-9


def test_downdated_moments_have_the_eigenspace_of_a_recomputation(features):
    downdated = eigenspace(Moments.of(features).without(features[120:]), k=2)
    recomputed = eigenspace(Moments.of(features[:120]), k=2)

    cosines = torch.linalg.svdvals(downdated.basis.T @ recomputed.basis)
    torch.testing.assert_close(cosines, torch.ones(2).double())


def test_weights_count_samples_repeatedly(features):
    weights = torch.ones(200)
    weights[:10] = 3
    same(
        Moments.of(features, weights), Moments.of(torch.cat([features, features[:10].repeat(2, 1)]))
    )


def test_covariance_is_the_population_covariance(features):
    expected = torch.cov(features.T.double(), correction=0)
    torch.testing.assert_close(Moments.of(features).covariance(), expected)


def test_moments_survive_storage(features):
    moments = Moments.of(features)
    same(Moments.from_tensors(moments.to_tensors()), moments)


def test_eigenspace_has_the_leading_directions_and_ignores_the_mean(features):
    space = eigenspace(Moments.of(features), k=2)

    assert space.k == 2
    torch.testing.assert_close(space.basis.T @ space.basis, torch.eye(2, dtype=torch.float64))
    assert space.basis[0, 0].abs() > 0.99
    assert space.basis[1, 1].abs() > 0.99


@pytest.mark.parametrize(("k", "kept"), [(0, 1), (3, 3), (99, 4)])
def test_k_is_clipped_to_the_dimensions(features, k, kept):
    assert eigenspace(Moments.of(features), k=k).k == kept


def test_alignment_is_the_squared_cosine_with_the_space():
    space = Eigenspace(torch.zeros(2).double(), torch.tensor([[1.0], [0.0]]).double())
    angles = torch.tensor([0.0, math.pi / 6, math.pi / 2])
    features = 7 * torch.stack([angles.cos(), angles.sin()], 1)

    torch.testing.assert_close(alignment(features, space), torch.tensor([1.0, 0.75, 0.0]))


def test_a_feature_at_the_mean_has_no_alignment_and_no_gradient():
    space = Eigenspace(torch.ones(2).double(), torch.tensor([[1.0], [0.0]]).double())
    features = torch.ones(1, 2, requires_grad=True)

    da = alignment(features, space)
    da.sum().backward()

    assert da.item() == 0
    assert features.grad.abs().sum() == 0


def test_matching_weights_give_the_class_mix_of_the_other_side():
    labels, like = torch.tensor([0, 0, 0, 1, 2]), torch.tensor([0, 1, 1, 1])

    weights = matching_weights(labels, like)

    torch.testing.assert_close(weights, torch.tensor([1, 1, 1, 9, 0]).double() / 12)


def test_matching_weights_leave_out_lacking_classes_and_are_equal_when_all_lack():
    labels = torch.tensor([0, 0, 1])
    assert matching_weights(labels, torch.tensor([0, 5])).tolist() == [0.5, 0.5, 0]
    assert matching_weights(labels, torch.tensor([5])).tolist() == pytest.approx([1 / 3] * 3)


def test_gap_is_zero_within_its_interval_for_equal_sets_and_found_for_shifted_ones():
    labels = torch.arange(300) % 3
    da = torch.rand(600, generator=seeded()) * 0.2 + labels.repeat(2) * 0.1

    equal = alignment_gap(da[:300], labels, da[300:], labels, seeded())
    shifted = alignment_gap(da[:300] + 0.1, labels, da[300:], labels, seeded())

    assert equal.low < 0 < equal.high
    assert 0 < shifted.low < shifted.value < shifted.high
    assert shifted.value - equal.value == pytest.approx(0.1)


def test_gap_does_not_depend_on_the_class_mix():
    mix, balanced = torch.tensor([0] * 90 + [1] * 10), torch.arange(100) % 2

    gap = alignment_gap(mix * 0.5, mix, balanced * 0.5, balanced, seeded())

    assert (gap.value, gap.low, gap.high) == pytest.approx((0, 0, 0))


def test_gap_of_one_sample_has_a_value_but_no_interval():
    holdout = torch.tensor([0.2, 0.4]), torch.tensor([0, 0])

    gap = alignment_gap(torch.tensor([0.5]), torch.tensor([0]), *holdout, seeded())

    assert gap.value == pytest.approx(0.2)
    assert (gap.low, gap.high) == (None, None)


def test_gap_is_defined_for_a_class_the_holdout_lacks():
    holdout = torch.tensor([0.2, 0.4, 0.3]), torch.tensor([0, 0, 1])
    gap = alignment_gap(torch.tensor([0.5, 0.6]), torch.tensor([7, 7]), *holdout, seeded())
    assert gap.value == pytest.approx(0.25)
    assert gap.low < gap.value < gap.high


def test_overlap_is_one_with_itself_and_undefined_for_few_samples(features):
    space = eigenspace(Moments.of(features), k=2)

    assert subspace_overlap(features, space) == pytest.approx(1)
    assert subspace_overlap(features[:2], space) is None


def test_effective_rank_counts_directions():
    corners = torch.cat([torch.eye(5), -torch.eye(5)])
    assert effective_rank(corners) == pytest.approx(5)
    assert effective_rank(corners[:, :1]) == pytest.approx(1)
    assert effective_rank(torch.ones(3, 5)) == pytest.approx(1)
