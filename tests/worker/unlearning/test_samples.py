import pytest
import torch

from worker.unlearning.samples import Samples, batch_indices, class_balanced, skew


def seeded():
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize(("count", "batch_size"), [(1, 8), (8, 8), (9, 8), (17, 8), (100, 128)])
def test_batches_hold_every_index_once_and_are_nearly_equal(count, batch_size):
    batches = list(batch_indices(count, batch_size, seeded()))

    sizes = [len(batch) for batch in batches]
    assert sorted(torch.cat(batches).tolist()) == list(range(count))
    assert max(sizes) <= batch_size
    assert max(sizes) - min(sizes) <= 1


def test_nothing_makes_no_batch():
    assert list(batch_indices(0, 8)) == []


def test_class_balanced_draws_equal_shares():
    labels = torch.tensor([0] * 50 + [1] * 5 + [2] * 50)

    drawn = labels[class_balanced(labels, 15, seeded())]

    assert drawn.bincount().tolist() == [5, 5, 5]


def test_class_balanced_lets_others_share_what_a_small_class_leaves():
    labels = torch.tensor([0] * 50 + [1] * 2 + [2] * 50)

    drawn = labels[class_balanced(labels, 22, seeded())]

    assert drawn.bincount().tolist() == [10, 2, 10]


def test_class_balanced_draws_no_sample_twice_and_all_at_most():
    drawn = class_balanced(torch.tensor([0, 0, 1]), 10, seeded())
    assert sorted(drawn.tolist()) == [0, 1, 2]


def test_select_takes_masks_and_indices():
    samples = Samples(torch.arange(4), torch.tensor([0, 1, 2, 3]))

    assert samples.select(torch.tensor([3, 0])).labels.tolist() == [3, 0]
    assert samples.select(samples.labels > 1).inputs.tolist() == [2, 3]


@pytest.mark.parametrize(
    ("inputs", "labels", "message"),
    [
        (torch.zeros(2), torch.zeros(2), "int64"),
        (torch.zeros(2), torch.zeros(2, 1, dtype=torch.int64), "int64"),
        (torch.zeros(3), torch.zeros(2, dtype=torch.int64), "3 inputs, but 2 labels"),
    ],
)
def test_refuses_what_is_not_labelled_samples(inputs, labels, message):
    with pytest.raises(ValueError, match=message):
        Samples(inputs, labels)


@pytest.mark.parametrize(
    ("labels", "counts", "expected"),
    [([0, 1], [50, 50], 0), ([0], [50, 50], 0.5), ([1], [50, 0], 1), ([0, 0, 1], [1, 2], 1 / 3)],
)
def test_skew_is_the_total_variation_between_class_mixes(labels, counts, expected):
    assert skew(torch.tensor(labels), torch.tensor(counts)) == pytest.approx(expected)
