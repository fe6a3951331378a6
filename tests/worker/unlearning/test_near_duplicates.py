"""Samples nearer to each other than their class's spread explains are grouped; others are not."""

import pytest
import torch

from worker.unlearning import near_duplicates
from worker.unlearning.near_duplicates import Likeness


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


@pytest.fixture
def independent(generator):
    """Features of `count` independent samples of two classes, denser here and there."""

    def make(count: int = 600, dimensions: int = 24):
        labels = torch.arange(count) % 2
        spread = torch.rand(count, 1, generator=generator) + 0.5
        points = spread * torch.randn(count, dimensions, generator=generator)
        return points + 5 * labels[:, None], labels

    return make


def copied(points, labels, generator, *, size=5, bursts=20, noise=0.05):
    """The same where bursts take the place of the first samples; and who belongs together."""
    groups = torch.arange(len(points))
    for first in range(0, size * bursts, size):
        rows = slice(first, first + size)
        points[rows] = points[first] + noise * torch.randn(points[rows].shape, generator=generator)
        labels[rows], groups[rows] = labels[first], first
    return groups


def found(layers, labels, batch=250):
    likeness = Likeness()
    for rows in torch.arange(len(labels)).split(batch):
        likeness.add({name: values[rows] for name, values in layers.items()}, labels[rows])
    return likeness.found()


def groups_of(numbers):
    return {
        tuple((numbers == number).nonzero().squeeze(1).tolist())
        for number in numbers.unique().tolist()
        if number >= 0
    }


def test_independent_samples_have_no_near_duplicates(independent):
    points, labels = independent()

    assert found({"": points}, labels).numbers.tolist() == [-1] * 600


def test_bursts_are_found_whole_and_nothing_else(independent, generator):
    points, labels = independent()
    copied(points, labels, generator, noise=0.02)

    numbers = found({"": points}, labels).numbers

    assert groups_of(numbers) == {tuple(range(first, first + 5)) for first in range(0, 100, 5)}
    assert set(numbers.tolist()) == {-1, *range(20)}


def test_a_layer_that_draws_a_class_together_does_not_hide_them(independent, generator):
    points, labels = independent()
    copied(points, labels, generator)
    collapsed = labels[:, None] + 1e-3 * torch.randn(600, 8, generator=generator)

    numbers = found({"first": points, "last": 100 * collapsed}, labels).numbers

    assert (numbers[:100] >= 0).float().mean() > 0.9
    assert (numbers[100:] == -1).all()


def test_samples_of_another_class_are_no_duplicates(independent):
    points, labels = independent()
    points[1] = points[0]

    assert found({"": points}, labels).numbers[:2].tolist() == [-1, -1]


def test_most_of_a_class_may_be_bursts(independent, generator):
    points, labels = independent()
    copied(points, labels, generator, size=10, bursts=50)

    numbers = found({"": points}, labels).numbers

    assert (numbers[:500] >= 0).all()
    assert (numbers[500:] == -1).all()


def test_equal_values_say_nothing_where_most_samples_are_equal(generator):
    answers = torch.randint(3, (600, 4), generator=generator).float()  # 81 ways to answer
    labels = torch.arange(600) % 2

    said = found({"": answers}, labels)

    assert said.numbers.tolist() == [-1] * 600
    assert said.not_counted > 500


def test_small_classes_borrow_the_spread_of_others(independent, generator):
    points, _ = independent()
    labels = torch.arange(600) // 6
    points += 50 * torch.randn(100, 24, generator=generator)[labels]
    points[1] = points[0] + 0.01

    numbers = found({"": points}, labels).numbers

    assert groups_of(numbers) == {(0, 1)}


@pytest.mark.parametrize("count", [0, 1, 20])
def test_of_too_few_samples_nothing_is_said(count, generator):
    points = torch.randn(count, 4, generator=generator)

    said = found({"": points}, torch.zeros(count, dtype=torch.int64))

    assert said.numbers.tolist() == [-1] * count
    assert said.not_searched == count


@pytest.mark.parametrize("value", [0.0, 1e30])
def test_a_dead_network_has_no_near_duplicates(value):
    layers = {"": torch.full((300, 4), value)}

    assert found(layers, torch.zeros(300, dtype=torch.int64)).numbers.tolist() == [-1] * 300


def test_a_large_class_is_cut_and_bursts_are_still_found(independent, generator, monkeypatch):
    monkeypatch.setattr(near_duplicates, "CELL", 200)
    points, labels = independent(2000)
    copied(points, labels, generator)

    numbers = found({"": points}, labels).numbers

    assert (numbers[:100] >= 0).float().mean() > 0.8
    assert (numbers[100:] >= 0).float().mean() < 0.01


def test_layers_must_stay_the_same():
    likeness = Likeness()
    likeness.add({"a": torch.zeros(2, 3)}, torch.zeros(2, dtype=torch.int64))

    with pytest.raises(ValueError, match="same for all samples"):
        likeness.add({"b": torch.zeros(2, 3)}, torch.zeros(2, dtype=torch.int64))
