import pytest
import torch

from worker.unlearning.alignment import Moments
from worker.unlearning.audit.verdict import Limits, audit
from worker.unlearning.evaluation import (
    Observed,
    Outputs,
    accuracy,
    evaluate,
    membership_auc,
    retain_moments,
)


def outputs(logits, labels):
    labels = torch.tensor(labels)
    return Outputs(torch.zeros(len(labels), 2), torch.tensor(logits, dtype=torch.float32), labels)


def sure(values, label=0):
    """Outputs whose loss falls as the value rises."""
    return outputs([[value if c == label else 0.0 for c in range(3)] for value in values],
                   [label] * len(values))  # fmt: skip


def test_auc_is_one_when_every_forget_loss_is_lower():
    assert membership_auc(sure([5, 6]), sure([1, 2, 3])) == pytest.approx(1)
    assert membership_auc(sure([1]), sure([5, 6])) == pytest.approx(0)


def test_auc_counts_ties_half():
    assert membership_auc(sure([1, 1]), sure([1, 1, 1])) == pytest.approx(0.5)


def test_auc_weighs_the_holdout_to_the_class_mix_of_the_forget_set():
    easy, hard = sure([9, 9, 9, 9], label=1), sure([0], label=0)
    holdout = outputs(easy.logits.tolist() + hard.logits.tolist(), [1, 1, 1, 1, 0])
    forget = outputs([[5.0, 0, 0], [0, 5.0, 0]], [0, 1])
    assert membership_auc(forget, holdout) == pytest.approx(0.5)


def test_auc_is_undefined_without_holdout_of_these_classes():
    assert membership_auc(sure([1], label=0), sure([1], label=2)) is None


def test_accuracy_counts_by_weight_and_is_undefined_for_nothing():
    answers = outputs([[1.0, 0], [1.0, 0]], [0, 1])

    assert accuracy(answers) == 0.5
    assert accuracy(answers, torch.tensor([3.0, 1.0])) == 0.75
    assert accuracy(answers, torch.zeros(2)) is None


def test_a_balanced_reservoir_estimates_the_moments_of_an_unbalanced_retain_set():
    features = torch.tensor([[1.0], [3.0]])
    reservoir = Outputs(features, torch.zeros(2, 2), torch.tensor([0, 1]))

    moments = retain_moments(reservoir, torch.tensor([30, 10]))

    whole = Moments.of(torch.cat([features[:1].repeat(30, 1), features[1:].repeat(10, 1)]))
    torch.testing.assert_close(moments.mean, whole.mean)
    torch.testing.assert_close(moments.second, whole.second)


def test_a_memorised_set_is_told_from_one_never_seen(problem):
    train, holdout = problem.train, problem.holdout
    half = torch.arange(len(holdout)) < 100
    shared = {
        "retain": train.select(torch.arange(240) >= 60),
        "holdout": holdout.select(~half),
        "test": holdout,
    }

    def measured(forget):
        observed = Observed.of(problem.network, forget=forget, **shared)
        return evaluate(observed, class_counts=torch.tensor([45] * 4))

    seen = measured(train.select(torch.arange(240) < 60))
    unseen = measured(holdout.select(half))

    assert seen.membership_auc > 0.6
    assert unseen.membership_auc == pytest.approx(0.5, abs=0.1)
    assert unseen.da_gap_low < 0 < unseen.da_gap_high
    assert seen.k == 3


def test_an_empty_set_is_named(problem):
    nothing = problem.train.select(torch.tensor([], dtype=torch.int64))
    with pytest.raises(ValueError, match="retain set is empty"):
        Observed.of(problem.network, forget=problem.train, retain=nothing, holdout=problem.train,
                    test=None)  # fmt: skip


def test_without_a_holdout_nothing_is_said_of_it(problem):
    nothing = problem.train.select(torch.tensor([], dtype=torch.int64))
    observed = Observed.of(
        problem.network, forget=problem.train, retain=problem.train, holdout=nothing, test=None
    )
    counts = torch.tensor([45] * 4)
    seen = evaluate(observed, class_counts=counts)

    assert seen.forget_accuracy > 0
    assert (seen.holdout_accuracy, seen.da_holdout, seen.da_gap) == (None, None, None)
    assert (seen.membership_auc, seen.holdout_feature_norm) == (None, None)
    found = audit(observed, observed, class_counts=counts, removing=False, limits=Limits())
    assert (found.fails, found.has_power, found.tests) == (False, False, ())
