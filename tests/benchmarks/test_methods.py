"""All methods follow the same rules on a toy problem, within their share of retraining time."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from benchmarks.quality.methods import METHODS
from benchmarks.quality.methods.given import Given
from benchmarks.quality.methods.training import Descent, divergence, sgd
from tests.benchmarks.toy_problem import RETRAINING_EPOCHS, counting, joined, same

TRAINED = METHODS.keys() - {"do nothing", "SSD"}


def test_every_method_is_searched_over_eight_settings_that_it_knows() -> None:
    for name, method in METHODS.items():
        assert len(method.SEARCH) == (1 if name == "do nothing" else 8)
        assert method.SEARCH[0] == method.SETTINGS
        assert all(settings.keys() == method.SETTINGS.keys() for settings in method.SEARCH)
        assert len({str(settings) for settings in method.SEARCH}) == len(method.SEARCH)


@pytest.mark.parametrize("name", METHODS)
def test_the_same_seed_gives_the_same_weights_and_another_seed_others(
    name: str, given: Given
) -> None:
    once, again = (METHODS[name].unlearn(given) for _ in range(2))
    other = METHODS[name].unlearn(replace(given, seed=given.seed + 1))

    assert same(once, again)
    assert not once.training
    assert all(parameter.grad is None for parameter in once.parameters())
    if name in TRAINED:
        assert not same(once, other)


@pytest.mark.parametrize("name", METHODS)
def test_the_original_is_left_as_it_is_and_the_result_is_another_model(
    name: str, given: Given
) -> None:
    before = given.original.copy().model

    after = METHODS[name].unlearn(given)

    assert same(given.original.model, before)
    assert after is not given.original.model
    if name in TRAINED - {"SalUn"}:
        weights = zip(before.parameters(), after.parameters(), strict=True)
        assert not any(old.equal(new) for old, new in weights)


@pytest.mark.parametrize("name", METHODS)
def test_every_setting_ends_finite_and_within_two_fifths_of_retraining(
    name: str, given: Given
) -> None:
    for settings in METHODS[name].SEARCH:
        counted, cost = counting(given)

        after = METHODS[name].unlearn(counted, **settings)

        assert all(weight.isfinite().all() for weight in after.state_dict().values())
        assert cost() <= 0.4 * RETRAINING_EPOCHS * len(given.retain), settings


@pytest.mark.parametrize("name", METHODS)
def test_a_class_can_be_removed(name: str, given: Given) -> None:
    everything = joined(given.retain, given.forget)
    lost = everything.labels == 0
    whole = replace(
        given, forget=everything.select(lost), retain=everything.select(~lost), removing=True
    )

    after = METHODS[name].unlearn(whole)

    assert all(weight.isfinite().all() for weight in after.state_dict().values())


@pytest.mark.parametrize("name", METHODS)
def test_one_sample_can_be_forgotten(name: str, given: Given) -> None:
    one = replace(given, forget=given.forget.select(torch.tensor([0])))

    after = METHODS[name].unlearn(one)

    assert all(weight.isfinite().all() for weight in after.state_dict().values())


def test_a_gradient_that_explodes_is_cut() -> None:
    model = nn.Linear(3, 1)
    before = model.weight.detach().clone()
    descent = Descent(sgd(model, 0.1, weight_decay=0.0), steps=1, schedule=lambda done: 1.0)

    descent.step(1e30 * model(torch.ones(1, 3)).sum())

    assert (model.weight - before).norm() <= 0.1 * 10 * 1.001


def test_the_divergence_is_zero_from_the_teacher_and_grows_with_the_temperature_squared() -> None:
    logits = torch.randn(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    assert divergence(logits, logits).item() == pytest.approx(0)
    warm = divergence(4 * logits, torch.zeros_like(logits), 4.0)
    assert warm.item() == pytest.approx(16 * divergence(logits, torch.zeros_like(logits)).item())
