import copy
import math
from dataclasses import replace

import pytest
import torch

from worker.unlearning import unlearn
from worker.unlearning.alignment import alignment
from worker.unlearning.class_removal import ceiling_of
from worker.unlearning.config import default_config
from worker.unlearning.frozen_stem import StemOutputs
from worker.unlearning.goal import own_answers
from worker.unlearning.phases import (
    FURTHEST,
    RetainCompanions,
    _alignment,
    _forget_losses,
    _membership,
    _pushed,
    forget_phase,
    recover_phase,
    rehearsal,
)
from worker.unlearning.samples import Samples
from worker.unlearning.sgd import SGD


@pytest.fixture
def steps(monkeypatch):
    """Grows by one whenever an optimiser has stepped."""
    done = []
    step = SGD.step

    def counted(optimizer):
        step(optimizer)
        done.append(1)

    monkeypatch.setattr(SGD, "step", counted)
    return done


@pytest.fixture
def config():
    default = default_config(removing=False, forget_count=40, reservoir_count=200)
    return replace(default, cycles=1)


@pytest.fixture
def goal(problem, config, monkeypatch):
    """What a run would have the forget phase do."""
    seen = []

    def watched(network, goal, *rest, **named):
        seen.append(goal)
        return forget_phase(network, goal, *rest, **named)

    monkeypatch.setattr(unlearn, "forget_phase", watched)
    arguments = problem.forgetting(torch.arange(len(problem.train)) < 40)
    unlearn.unlearn(problem.network, **arguments, config=config, on_cycle=lambda *_: None)
    return seen[0]


@pytest.fixture
def network(problem):
    """Where there are no values: whoever asks the device for one gets an error."""
    return problem.network.around(copy.deepcopy(problem.network.model).to("meta"))


def on_meta(samples):
    return Samples(samples.inputs.to("meta"), samples.labels)


def whole(samples):
    """Samples before a stem that is empty."""
    return StemOutputs(lambda inputs: inputs, samples)


def test_the_host_waits_for_the_device_only_after_the_last_recover_step(
    problem, network, config, goal, steps
):
    held = replace(goal, samples=on_meta(goal.samples))
    losses = torch.zeros(len(problem.train))
    rehearsed = rehearsal(problem.train.labels, losses, config, torch.Generator(), 400)
    answers = torch.zeros(len(problem.train), 4, device="meta")

    with pytest.raises(RuntimeError, match="meta"):
        recover_phase(
            network,
            held,
            whole(on_meta(problem.train)),
            answers,
            rehearsed,
            config,
            1,
            torch.Generator(),
        )

    assert len(steps) == len(rehearsed) >= 400 / config.batch_size


def test_the_host_waits_for_the_device_only_after_the_last_forget_step(
    problem, network, config, goal, steps
):
    goal = replace(goal, samples=on_meta(goal.samples))
    answers = torch.zeros(len(problem.train), 4, device="meta")
    companions = RetainCompanions(whole(on_meta(problem.train)), answers, torch.Generator())

    with pytest.raises(RuntimeError, match="meta"):
        forget_phase(network, goal, companions, config, 1, torch.Generator())

    assert len(steps) >= config.forget_epochs * 40 / config.forget_batch


def test_a_small_reservoir_is_seen_over_and_over(problem, config):
    few = problem.train.labels[:30]

    drawn = torch.cat(rehearsal(few, torch.rand(30), config, torch.Generator(), 75))

    assert len(drawn) == 75
    assert set(drawn.bincount(minlength=30).tolist()) <= {2, 3}


def test_what_the_original_found_hardest_is_always_rehearsed(config):
    labels, hardness = torch.arange(200) % 4, torch.arange(200.0).flip(0)
    config = replace(config, hard_share=0.5)

    first, again = (
        torch.cat(rehearsal(labels, hardness, config, torch.Generator().manual_seed(seed), 80))
        for seed in (1, 2)
    )

    assert len(first.unique()) == len(again.unique()) == 80
    assert set(range(40)) <= set(first.tolist()) & set(again.tolist())
    assert set(first.tolist()) != set(again.tolist())
    assert labels[first[first >= 40]].bincount().tolist() == [10, 10, 10, 10]


def test_what_is_rehearsed_does_not_move_forget_samples_out_of_alignment(problem, config, goal):
    """The DA they are to have is put far off, so that it shows who follows it."""
    goal = replace(goal, offsets=goal.offsets - 0.5)
    rehearsed = rehearsal(
        problem.train.labels, torch.zeros(len(problem.train)), config, torch.Generator(), 800
    )
    answers = problem.network.outputs(problem.train, 64)[1].softmax(1)

    def after(weight):
        network = problem.network.copy()
        recover_phase(
            network,
            goal,
            whole(problem.train),
            answers,
            rehearsed,
            replace(config, alignment_weight=weight),
            1,
            torch.Generator().manual_seed(0),
        )
        network.model.eval()
        features, _ = network.outputs(goal.samples, 64)
        return alignment(features, goal.space).mean().item()

    assert after(1.0) < after(0.0) - 0.1


def test_samples_of_a_class_that_leaves_are_pulled_to_unseen_ones_which_stay(problem, config, goal):
    features = 1 + torch.rand(40, 32, generator=torch.Generator().manual_seed(0))
    features[:20] *= 2
    features.requires_grad_()
    goal = replace(
        goal,
        leaving=torch.ones(40, dtype=torch.bool),
        forgotten=torch.arange(40) < 20,
    )

    loss = _alignment(torch.cat([features, features.detach()]), goal, torch.arange(40))
    loss.backward()
    moved = (features - 0.01 * features.grad).detach().norm(dim=1)

    assert moved[:20].mean() < features[:20].norm(dim=1).mean()
    torch.testing.assert_close(moved[20:], features[20:].norm(dim=1).detach())


def test_nothing_is_learned_from_unseen_samples_of_a_class_that_leaves(problem, config, goal):
    network = problem.network.copy()
    network.model.eval()  # batch statistics are those of all
    goal = replace(
        goal,
        leaving=torch.ones(40, dtype=torch.bool),
        forgotten=torch.arange(40) < 20,
        answers=goal.answers[:20],
    )
    beside = problem.train.inputs[100:110], torch.full((10, 4), 0.25)

    losses, _ = _forget_losses(network, goal, torch.arange(20, 40), beside, math.inf)

    assert [loss.item() for loss in (losses[0], losses[1], losses[3])] == [0, 0, 0]


def test_a_class_that_leaves_is_pushed_no_further_than_the_least_likely_one(goal):
    """Its unseen samples share the head, and follow: without an end the push would have none."""
    goal = replace(goal, leaving=torch.ones(40, dtype=torch.bool), forgotten=torch.arange(40) < 20)
    losses = torch.cat([torch.full((20,), 8.0), torch.full((20,), 20.0)]).requires_grad_()

    below, above = (_membership(losses, goal, torch.arange(40), end) for end in (9.0, 7.0))
    below.backward()

    assert (below.item(), above.item()) == (1.0, 0.0)
    assert losses.grad[:20].sum().item() == pytest.approx(-1.0)
    assert losses.grad[20:].abs().sum() == 0


def test_the_least_likely_class_is_that_of_each_sample():
    logits = torch.tensor([[0.1, 0.2, 0.7], [0.6, 0.1, 0.3]]).log()

    assert ceiling_of(logits) == pytest.approx(-0.7 * math.log(0.1))


@pytest.mark.parametrize(("excess", "moved"), [(0.5, 0.375), (-0.1, -0.075)])
def test_the_shift_follows_the_membership_auc_and_stays_within_its_limits(
    goal, config, excess, moved
):
    """Ten samples say half of what many do; nothing is taught again."""

    def after(shift):
        start = replace(goal, shift=torch.tensor(shift))
        return _pushed(start, torch.tensor(excess), 10, config).shift.item()

    assert after(2.0) == pytest.approx(2.0 + moved)
    assert after(0.0) == pytest.approx(max(moved, 0.0))
    assert after(FURTHEST) <= FURTHEST


def test_wrong_answers_of_the_original_are_set_right_and_the_others_kept(config):
    logits = torch.tensor([[2.0, 1.0, 0.0], [2.0, 1.0, 0.0]])
    lost = torch.tensor([False, False, True])

    own = own_answers(logits, torch.tensor([0, 1]), lost, config)

    expected = torch.tensor([2.0, 1.0]).softmax(0)
    torch.testing.assert_close(own[0, :2], expected, atol=1e-5, rtol=0)
    assert own[1].tolist() == [0, 1, 0]
    assert own[:, 2].tolist() == [0, 0]
