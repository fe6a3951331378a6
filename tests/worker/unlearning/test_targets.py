import math

import pytest
import torch

from worker.unlearning import targets


def logits_with_margins(margins, labels):
    logits = torch.zeros(len(margins), 3, dtype=torch.float64)
    return logits.scatter(1, labels[:, None], margins.double()[:, None])


def test_margin_is_negative_where_the_answer_is_wrong():
    logits = torch.tensor([[3.0, 1.0, 0.0], [3.0, 1.0, 0.0]])
    assert targets.margins(logits, torch.tensor([0, 1])).tolist() == [2, -2]


def test_masked_keeps_the_odds_of_what_may_still_be_given():
    logits = torch.tensor([[5.0, 2.0, 1.0, 9.0]])
    lost = torch.tensor([False, False, False, True])

    answer = targets.masked(logits, torch.tensor([0]), lost)

    assert answer[0, [0, 3]].tolist() == [0, 0]
    assert answer.sum().item() == pytest.approx(1)
    assert (answer[0, 1] / answer[0, 2]).log().item() == pytest.approx(1)


def test_calibrated_gives_each_class_the_margins_of_its_holdout():
    labels = torch.arange(40) % 2
    holdout_labels = torch.arange(60) % 2
    logits = logits_with_margins(torch.linspace(5, 9, 40), labels)
    unseen = torch.where(holdout_labels == 0, 1.0, -2.0)

    answers = targets.calibrated(
        logits, labels, logits_with_margins(unseen, holdout_labels), holdout_labels
    )

    wanted = torch.where(labels == 0, 1.0, -2.0).double()
    torch.testing.assert_close(targets.margins(answers.log(), labels), wanted)


def test_calibrated_keeps_the_order_of_the_samples_and_raises_none():
    labels = torch.zeros(20, dtype=torch.int64)
    logits = logits_with_margins(torch.rand(20, generator=torch.Generator().manual_seed(0)), labels)
    unseen = logits_with_margins(torch.linspace(-3, 3, 20), labels)

    answers = targets.calibrated(logits, labels, unseen, labels)

    before, after = targets.margins(logits, labels), targets.margins(answers.log(), labels)
    assert before.argsort().tolist() == after.argsort().tolist()
    wanted = torch.minimum(torch.linspace(-3, 3, 20).double(), before.sort().values)
    torch.testing.assert_close(after.sort().values, wanted)


def test_calibrated_takes_all_the_holdout_for_a_class_it_lacks():
    unseen_labels = torch.zeros(3, dtype=torch.int64)
    unseen = logits_with_margins(torch.tensor([-1.0, 0.5, 4.0]), unseen_labels)
    label = torch.tensor([2])

    answer = targets.calibrated(
        logits_with_margins(torch.tensor([8.0]), label), label, unseen, unseen_labels
    )

    assert targets.margins(answer.log(), label).item() == pytest.approx(0.5)


def test_targets_leave_the_logits_alone():
    logits, labels = torch.ones(1, 3), torch.tensor([1])

    targets.masked(logits, labels, torch.tensor([False] * 3))
    targets.calibrated(logits, labels, logits + 1, labels)

    assert logits.tolist() == [[1, 1, 1]]


def test_a_class_is_masked_by_what_unseen_samples_of_it_get_wrong():
    labels = torch.tensor([0] * 10 + [1] * 10 + [2] * 2)
    answers = torch.tensor([0] * 8 + [1] * 2 + [0] * 9 + [1] + [2] * 2)

    shares = targets.masked_shares(torch.eye(3)[answers], labels)

    torch.testing.assert_close(shares, torch.tensor([0.2, 0.9, 0.5]))


def test_masked_may_give_the_true_class_when_no_other_is_left():
    answer = targets.masked(torch.zeros(1, 2), torch.tensor([0]), torch.tensor([False, True]))
    assert answer.tolist() == [[1, 0]]


def test_a_shift_lowers_the_odds_of_the_true_class_and_keeps_the_others_apart():
    answers = torch.tensor([[0.5, 0.25, 0.25], [0.2, 0.2, 0.6]])

    lowered = targets.shifted(answers, torch.tensor([0, 2]), 1.0)

    odds = lowered / (1 - lowered)
    torch.testing.assert_close(odds[0, 0], torch.tensor(1 / math.e))
    torch.testing.assert_close(odds[1, 2], torch.tensor(1.5 / math.e))
    torch.testing.assert_close(lowered[0, 1], lowered[0, 2])
    torch.testing.assert_close(targets.shifted(answers, torch.tensor([0, 2]), 0.0), answers)


def test_nothing_is_left_for_lost_classes():
    answers = torch.tensor([[0.5, 0.3, 0.2], [1.0, 0.0, 0.0]])

    left = targets.without_classes(answers, torch.tensor([True, False, False]))

    torch.testing.assert_close(left, torch.tensor([[0, 0.6, 0.4], [0, 0.5, 0.5]]))


def test_spread_answers_vary_as_much_as_told_and_the_same_each_time():
    answers = torch.tensor([[0.6, 0.4]]).repeat(20_000, 1)

    spread = targets.spread(answers, 1.5, seed=3)

    odds = (spread[:, 0] / spread[:, 1]).log()
    assert abs(odds.mean().item() - math.log(1.5)) < 0.05
    assert abs(odds.std().item() - 1.5 * math.sqrt(2)) < 0.05
    assert torch.equal(spread, targets.spread(answers, 1.5, seed=3))
    torch.testing.assert_close(targets.spread(answers, 0.0, seed=3), answers)


@pytest.mark.parametrize(("wanted", "reached"), [(0.9, 0.9), (0.3, 0.55), (1.1, 1.0)])
def test_sharpened_answers_are_as_sure_as_told_and_never_less_sure(wanted, reached):
    answers = torch.tensor([[0.6, 0.3, 0.1], [0.2, 0.5, 0.3]])

    sharpened = targets.sharpened(answers, wanted)

    assert sharpened.amax(1).mean().item() == pytest.approx(reached, abs=1e-3)
    assert sharpened.argmax(1).tolist() == [0, 1]
