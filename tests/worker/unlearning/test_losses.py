import math

import pytest
import torch

from worker.unlearning.alignment import Eigenspace
from worker.unlearning.losses import alignment_loss, distillation_loss, membership_loss


@pytest.fixture
def space():
    return Eigenspace(torch.zeros(2).double(), torch.tensor([[1.0], [0.0]]).double())


@pytest.fixture
def features():
    """DA 0.75 and 0.25."""
    angles = torch.tensor([math.pi / 6, math.pi / 3]).double()
    return torch.stack([angles.cos(), angles.sin()], 1).requires_grad_()


NEITHER, BOTH = torch.tensor([False, False]), torch.tensor([True, True])


def test_alignment_loss_is_zero_when_the_mean_is_reached_though_no_sample_is(features, space):
    loss = alignment_loss(features, space, torch.full((2,), 0.5).double(), NEITHER)
    assert loss.item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("target", [0.2, 0.9])
def test_alignment_loss_is_the_distance_of_the_means(features, space, target):
    loss = alignment_loss(features, space, torch.full((2,), target).double(), NEITHER)
    assert loss.item() == pytest.approx(abs(target - 0.5))


def test_alignment_is_never_pushed_down_when_it_may_only_rise(features, space):
    loss = alignment_loss(features, space, torch.full((2,), 0.2).double(), BOTH)
    loss.backward()

    assert loss.item() == 0
    assert features.grad.abs().sum() == 0


def test_a_step_down_the_gradient_raises_alignment(features, space):
    targets = torch.full((2,), 0.9).double()
    alignment_loss(features, space, targets, BOTH).backward()

    moved = features.detach() - 0.1 * features.grad

    assert alignment_loss(moved, space, targets, BOTH) < 0.4


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
