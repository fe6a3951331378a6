import math

import pytest
import torch

from worker.unlearning import targets
from worker.unlearning.class_removal import without_classes


def logits_with_margins(margins, labels):
    logits = torch.zeros(len(margins), 3, dtype=torch.float64)
    return logits.scatter(1, labels[:, None], margins.double()[:, None])


def test_margin_is_negative_where_the_answer_is_wrong():
    logits = torch.tensor([[3.0, 1.0, 0.0], [3.0, 1.0, 0.0]])
    assert targets.margins(logits, torch.tensor([0, 1])).tolist() == [2, -2]


def test_calibrated_gives_each_class_the_margins_of_its_holdout():
    labels = torch.arange(40) % 2
    holdout_labels = torch.arange(60) % 2
    logits = logits_with_margins(torch.linspace(5, 9, 40), labels)
    unseen = torch.where(holdout_labels == 0, 1.0, -2.0)

    answers = targets.calibrated(
        logits,
        labels,
        logits_with_margins(unseen, holdout_labels),
        holdout_labels,
        targets.places(logits, labels, logits, labels),
    )

    wanted = torch.where(labels == 0, 1.0, -2.0).double()
    torch.testing.assert_close(targets.margins(answers.log(), labels), wanted)


def test_calibrated_keeps_the_order_of_the_samples_and_raises_none():
    labels = torch.zeros(20, dtype=torch.int64)
    logits = logits_with_margins(torch.rand(20, generator=torch.Generator().manual_seed(0)), labels)
    unseen = logits_with_margins(torch.linspace(-3, 3, 20), labels)

    ease = targets.places(logits, labels, logits, labels)
    answers = targets.calibrated(logits, labels, unseen, labels, ease)

    before, after = targets.margins(logits, labels), targets.margins(answers.log(), labels)
    assert before.argsort().tolist() == after.argsort().tolist()
    wanted = torch.minimum(torch.linspace(-3, 3, 20).double(), before.sort().values)
    torch.testing.assert_close(after.sort().values, wanted)


def test_calibrated_takes_all_the_holdout_for_a_class_it_lacks():
    unseen_labels = torch.zeros(3, dtype=torch.int64)
    unseen = logits_with_margins(torch.tensor([-1.0, 0.5, 4.0]), unseen_labels)
    label = torch.tensor([2])

    answer = targets.calibrated(
        logits_with_margins(torch.tensor([8.0]), label),
        label,
        unseen,
        unseen_labels,
        torch.tensor([0.5]),
    )

    assert targets.margins(answer.log(), label).item() == pytest.approx(0.5)


def test_calibrated_is_less_sure_of_samples_that_are_harder_than_unseen_ones():
    labels = torch.zeros(10, dtype=torch.int64)
    logits = logits_with_margins(torch.linspace(8, 9, 10), labels)
    unseen_labels = torch.zeros(100, dtype=torch.int64)
    unseen = logits_with_margins(torch.linspace(-4.95, 4.95, 100), unseen_labels)

    answers = targets.calibrated(logits, labels, unseen, unseen_labels, torch.full((10,), 0.105))

    assert targets.margins(answers.log(), labels).tolist() == pytest.approx([-3.95] * 10)


def test_places_are_shares_of_unseen_samples_of_the_class_with_a_smaller_margin():
    labels = torch.tensor([0, 0, 0, 1])
    logits = logits_with_margins(torch.tensor([-9.0, 2.0, 9.0, 0.0]), labels)
    among_labels = torch.tensor([0] * 10 + [1] * 2)
    among = logits_with_margins(torch.tensor([*range(10), 20, 21]).float(), among_labels)

    found = targets.places(logits, labels, among, among_labels)

    assert found[:3].tolist() == pytest.approx([0.05, 0.25, 0.95])
    assert found[3].item() == pytest.approx(0.5 / 12)  # two of its class are too few: of all


def test_targets_leave_the_logits_alone():
    logits, labels = torch.ones(1, 3), torch.tensor([1])

    targets.calibrated(logits, labels, logits + 1, labels, torch.tensor([0.5]))

    assert logits.tolist() == [[1, 1, 1]]


def test_a_shift_lowers_the_odds_of_the_true_class_and_keeps_the_others_apart():
    answers = torch.tensor([[0.5, 0.25, 0.25], [0.2, 0.2, 0.6]])

    lowered = targets.shifted(answers, torch.tensor([0, 2]), torch.tensor(1.0))

    odds = lowered / (1 - lowered)
    torch.testing.assert_close(odds[0, 0], torch.tensor(1 / math.e))
    torch.testing.assert_close(odds[1, 2], torch.tensor(1.5 / math.e))
    torch.testing.assert_close(lowered[0, 1], lowered[0, 2])
    torch.testing.assert_close(
        targets.shifted(answers, torch.tensor([0, 2]), torch.tensor(0.0)), answers
    )


def test_nothing_is_left_for_lost_classes():
    answers = torch.tensor([[0.5, 0.3, 0.2], [1.0, 0.0, 0.0]])

    left = without_classes(answers, torch.tensor([True, False, False]))

    torch.testing.assert_close(left, torch.tensor([[0, 0.6, 0.4], [0, 0.5, 0.5]]))


@pytest.mark.parametrize(("wanted", "reached"), [(0.9, 0.9), (0.3, 0.55), (1.1, 1.0)])
def test_sharpened_answers_are_as_sure_as_told_and_never_less_sure(wanted, reached):
    answers = torch.tensor([[0.6, 0.3, 0.1], [0.2, 0.5, 0.3]])

    sharpened = targets.sharpened(answers, wanted)

    assert sharpened.amax(1).mean().item() == pytest.approx(reached, abs=1e-3)
    assert sharpened.argmax(1).tolist() == [0, 1]
