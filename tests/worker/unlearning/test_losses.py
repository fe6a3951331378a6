import math

import pytest
import torch

from worker.unlearning.losses import distillation_loss, membership_loss, standing_loss

STANDING = torch.tensor([[0.25, 1.0], [0.75, 3.0]], dtype=torch.float64)
SPREAD = torch.tensor([0.1, 0.5], dtype=torch.float64)


def test_standing_loss_is_zero_when_the_mean_is_reached_though_no_sample_is():
    assert standing_loss(STANDING, torch.tensor([0.5, 2.0]), SPREAD).item() == pytest.approx(0)


def test_standing_loss_is_the_squared_distance_of_the_means_in_units_of_the_spread():
    loss = standing_loss(STANDING, torch.tensor([0.3, 3.0]), SPREAD)
    assert loss.item() == pytest.approx((2**2 + 2**2) * 2 / 12)


def test_few_samples_are_pulled_less():
    aim = torch.tensor([0.3, 3.0])
    few, many = (
        standing_loss(STANDING, aim, SPREAD),
        standing_loss(STANDING.repeat(500, 1), aim, SPREAD),
    )
    assert few.item() == pytest.approx(8 / 6)
    assert many.item() == pytest.approx(8, rel=0.01)


def test_distillation_is_zero_at_the_target_and_has_no_gradient_there():
    logits = torch.tensor([[1.0, 2.0, 3.0]], dtype=torch.float64, requires_grad=True)

    loss = distillation_loss(logits, logits.softmax(1))
    loss.backward()

    assert loss.item() == pytest.approx(0)
    assert logits.grad.abs().max() < 1e-12


def test_distillation_to_one_answer_is_its_surprise():
    logits = torch.zeros(2, 4, dtype=torch.float64)
    certain = torch.eye(4, dtype=torch.float64)[:2]
    assert distillation_loss(logits, certain).item() == pytest.approx(math.log(4))


def test_distillation_gives_its_target_no_gradient():
    target = torch.tensor([[0.0, 1.0]], requires_grad=True)
    logits = torch.zeros(1, 2, requires_grad=True)

    distillation_loss(logits, target.softmax(1)).backward()

    assert target.grad is None


def test_membership_loss_is_the_distance_between_equal_quantiles():
    unseen = torch.tensor([3.0, 1.0, 2.0])

    assert membership_loss(torch.tensor([2.0, 3.0, 1.0]), unseen).item() == 0
    assert membership_loss(unseen + 0.5, unseen).item() == pytest.approx(0.5)
    twice = torch.tensor([1.0, 1.0, 2.0, 2.0, 3.0, 3.0])
    assert membership_loss(twice, unseen).item() == 0


def test_membership_loss_moves_forget_samples_only():
    losses, unseen = (torch.tensor([v], requires_grad=True) for v in (1.0, 4.0))

    membership_loss(losses, unseen).backward()

    assert losses.grad.item() == -1
    assert unseen.grad is None
