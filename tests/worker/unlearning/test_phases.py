import copy
import math
from dataclasses import replace

import pytest
import torch

from worker.unlearning import phases, unlearn
from worker.unlearning.alignment import alignment
from worker.unlearning.class_removal import ceiling_of
from worker.unlearning.config import default_config
from worker.unlearning.frozen_stem import StemOutputs
from worker.unlearning.goal import own_answers
from worker.unlearning.phases import (
    AVERAGED,
    FURTHEST,
    RetainCompanions,
    _alignment,
    _forget_losses,
    _membership,
    _pushed,
    _shift,
    _unlearned,
    forget_phase,
    recover_phase,
    rehearsal,
    take_step,
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
    rehearsed = rehearsal(problem.train.labels, config, torch.Generator(), 400)
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

    drawn = torch.cat(rehearsal(few, config, torch.Generator(), 75))

    assert len(drawn) == 75
    assert set(drawn.bincount(minlength=30).tolist()) <= {2, 3}


def test_every_class_is_rehearsed_alike(config):
    labels = torch.tensor([0] * 150 + [1] * 30 + [2] * 20)

    drawn = torch.cat(rehearsal(labels, config, torch.Generator(), 60))

    assert len(drawn.unique()) == 60
    assert labels[drawn].bincount().tolist() == [20, 20, 20]


def test_what_is_rehearsed_does_not_move_forget_samples_out_of_alignment(problem, config, goal):
    """The DA they are to have is put far off, so that it shows who follows it."""
    goal = replace(goal, offsets=goal.offsets - 0.5)
    rehearsed = rehearsal(problem.train.labels, config, torch.Generator(), 800)
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

    losses, _ = _forget_losses(network, goal, torch.arange(20, 40), beside, math.inf, config)

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


@pytest.mark.parametrize(("excess", "moved"), [(0.5, 0.0375), (-0.1, -0.0075)])
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


@pytest.mark.parametrize(("excess", "pushed"), [(0.1, 1.6), (-0.1, 0.4), (-0.9, 0.0), (9.0, 6.0)])
def test_a_batch_is_pushed_as_far_as_it_is_surer_than_unseen_samples(goal, config, excess, pushed):
    """At once, and only while it is: what adds up over the steps alone pushed far past the aim."""
    start = replace(goal, shift=torch.tensor(1.0))

    assert _shift(start, torch.tensor(excess), 10, config).item() == pytest.approx(pushed)


def test_a_phase_of_recovery_ends_at_the_mean_of_its_last_weights(problem, config, goal):
    """The rate does not fall, so that the last weights alone would be a noisy draw."""
    rehearsed = rehearsal(problem.train.labels, config, torch.Generator(), 400)
    answers = problem.network.outputs(problem.train, 64)[1].softmax(1)
    network, seen = problem.network.copy(), []

    def watched(stepped, *_):
        take_step(stepped, *_)
        seen.append([weight.detach().clone() for weight in stepped.model.parameters()])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(phases, "take_step", watched)
        recover_phase(
            network, goal, whole(problem.train), answers, rehearsed, config, 1,
            torch.Generator().manual_seed(0),
        )  # fmt: skip

    first = math.ceil((1 - AVERAGED) * (len(seen) - 1))
    for at, weight in enumerate(network.model.parameters()):
        mean = torch.stack([weights[at] for weights in seen[first:]]).mean(0)
        torch.testing.assert_close(weight, mean)


def test_wrong_answers_of_the_original_are_set_right_and_the_others_kept(config):
    logits = torch.tensor([[2.0, 1.0, 0.0], [2.0, 1.0, 0.0]])
    lost = torch.tensor([False, False, True])

    own = own_answers(logits, torch.tensor([0, 1]), lost, replace(config, label_share=0.0))

    expected = torch.tensor([2.0, 1.0]).softmax(0)
    torch.testing.assert_close(own[0, :2], expected, atol=1e-5, rtol=0)
    assert own[1].tolist() == [0, 1, 0]
    assert own[:, 2].tolist() == [0, 0]


def test_nothing_is_taught_again_to_samples_that_are_less_sure_than_their_target():
    logits = torch.tensor([[3.0, 0.0], [-3.0, 0.0]], requires_grad=True)
    labels, answers = torch.tensor([0, 0]), torch.full((2, 2), 0.5)
    losses = torch.nn.functional.cross_entropy(logits, labels, reduction="none")

    _unlearned(logits, losses, answers, labels).backward()

    assert logits.grad[0, 0] > 0.1
    assert logits.grad[1].tolist() == [0, 0]
