"""The verdict and the utility guards on synthetic outputs, where every figure is known."""

from dataclasses import replace

import pytest
import torch

from tests.worker.unlearning.audit.synthetic import CLASSES, COUNTS, WIDTH, constant, observed
from worker.unlearning.audit.family import ALPHA
from worker.unlearning.audit.verdict import Limits, audit
from worker.unlearning.evaluation import Observed


def judged(before, after, *, removing=False, counts=COUNTS, **arguments):
    return audit(
        before, after, class_counts=counts, removing=removing, limits=Limits(), **arguments
    )


def test_a_model_that_treats_them_as_unseen_passes():
    found = judged(observed(memorised=0.5), observed())

    assert (found.fails, found.has_power) == (False, True)
    assert "never trained on these samples" in found.reason
    assert all(test.passed for test in (*found.tests, *found.guards))
    assert not all(test.passed for test in found.before)


def test_a_model_left_as_it_was_fails():
    found = judged(observed(memorised=0.5), observed(memorised=0.5))

    assert found.fails
    assert "membership by loss (AUC)" in found.reason


def test_where_nothing_was_memorised_there_is_no_power():
    found = judged(observed(), observed())

    assert (found.fails, found.has_power) == (False, False)
    assert "would have passed" in found.reason


def test_answers_worse_than_on_unseen_samples_fail_too():
    after = observed()
    hidden = replace(after.forget, logits=-after.forget.logits)

    found = judged(observed(memorised=0.5), replace(after, forget=hidden))

    assert found.fails
    assert {t.name: t for t in found.tests}["membership_loss"].value < 0.2


def test_features_that_stay_memorised_behind_a_changed_head_fail():
    before = observed(memorised=0.5)
    masked = replace(before.forget, logits=observed(seed=9).forget.logits)

    found = judged(before, replace(before, forget=masked))

    assert found.fails
    assert "membership by loss" not in found.reason
    assert "log norm" in found.reason


def test_collapsed_forget_features_fail():
    after = observed()
    nowhere = replace(after.forget, features=torch.zeros(60, WIDTH))
    assert judged(observed(memorised=0.5), replace(after, forget=nowhere)).fails


def test_one_answer_to_everything_fails_by_what_it_lost():
    after = observed()
    sets = {
        name: constant(getattr(after, name)) for name in ("forget", "retain", "holdout", "test")
    }

    found = judged(observed(memorised=0.5), Observed(**sets))

    assert found.fails
    assert all(test.passed for test in found.tests)
    passed = {test.name: test.passed for test in found.guards}
    assert not passed["test_accuracy"]
    assert not passed["class_accuracy"]


def test_answers_that_are_not_finite_fail():
    after = observed()
    broken = replace(after.test, logits=after.test.logits / 0)

    found = judged(observed(memorised=0.5), replace(after, test=broken))

    assert found.fails
    assert "not finite" in found.reason


@pytest.mark.parametrize("memorised", [0.0, 0.5])
def test_one_sample_is_compared_with_what_there_is(memorised):
    one = observed(forget=1, memorised=memorised)

    found = judged(one, one)

    assert found.fails or not found.has_power
    member = {t.name: t for t in found.tests}["membership_loss"]
    assert (member.forget_samples, member.holdout_samples) == (1, 50)
    assert member.p_value >= 1 / 51 - 0.01
    assert "probe_f1" not in {t.name for t in found.tests}
    assert "too few" in found.reason


def test_classes_that_the_holdout_lacks_are_counted_and_not_compared():
    whole = observed(memorised=0.5)
    lacking = replace(whole, holdout=whole.holdout.select(whole.holdout.labels > 0))

    found = judged(lacking, lacking)

    assert {test.forget_samples for test in found.tests} == {45}
    assert "15 forget samples are of classes that the hold-out lacks" in found.reason


def test_nothing_to_compare_is_no_power():
    after = observed(labels=torch.zeros(10).long())
    lacking = replace(after, holdout=after.holdout.select(after.holdout.labels > 0))

    found = judged(lacking, lacking)

    assert (found.fails, found.has_power) == (False, False)
    assert found.tests == ()
    assert "No forget sample can be compared" in found.reason


def test_large_sets_are_drawn_from_and_say_so(monkeypatch):
    monkeypatch.setattr("worker.unlearning.audit.pair.AUDITED", 40)
    found = judged(observed(), observed())
    assert {(t.forget_samples, t.holdout_samples) for t in found.tests} == {(40, 40)}
    assert "40 of 60 forget samples were drawn" in found.reason


def test_other_samples_after_than_before_are_refused():
    with pytest.raises(ValueError, match="different forget samples"):
        judged(observed(forget=60), observed(forget=61))


def flipped(outputs, count, label=None):
    """The outputs with the first `count` right answers (of a class) made wrong."""
    of_class = torch.ones_like(outputs.labels) == 1 if label is None else outputs.labels == label
    places = ((outputs.logits.argmax(1) == outputs.labels) & of_class).nonzero()[:count, 0]
    logits = outputs.logits.clone()
    logits[places] = -logits[places]
    return replace(outputs, logits=logits)


def guards_of(before, after, **arguments):
    return {test.name: test for test in judged(before, after, **arguments).guards}


def test_a_drop_of_test_accuracy_fails_once_it_is_surely_above_the_limit():
    before = observed()
    little, much = (replace(before, test=flipped(before.test, n)) for n in (12, 30))

    small, large = guards_of(before, little), guards_of(before, much)

    assert small["test_accuracy"].value == pytest.approx(0.04)  # above 3 %, but not surely
    assert small["test_accuracy"].passed
    assert large["test_accuracy"].value == pytest.approx(0.10)
    # Agresti and Min: (30 - 1.881 sqrt(31 - 30^2 / 302)) / 302
    assert large["test_accuracy"].low == pytest.approx((30 - 1.8808 * 28.0199**0.5) / 302, abs=1e-4)
    assert not large["test_accuracy"].passed
    assert large["test_accuracy"].p_value < ALPHA < small["test_accuracy"].p_value


def test_without_a_test_split_the_holdout_stands_in():
    before = replace(observed(), test=None)
    after = replace(before, holdout=flipped(before.holdout, 40))
    guard = guards_of(before, after)["test_accuracy"]
    assert guard.value == pytest.approx(0.2)
    assert guard.holdout_samples == 200


def test_the_worst_class_is_found_and_all_classes_share_the_error():
    before = observed()
    after = replace(before, retain=flipped(before.retain, 20, label=2))

    guard = guards_of(before, after)["class_accuracy"]

    assert guard.value == pytest.approx(20 / 50)
    assert guard.holdout_samples == 50
    assert not guard.passed


def test_a_class_that_leaves_is_no_loss_of_utility():
    before = observed(labels=torch.zeros(40).long())
    staying = before.retain.labels > 0
    before = replace(before, retain=before.retain.select(staying))
    after = replace(before, test=flipped(before.test, 100, label=0))
    counts = torch.tensor([0, 100, 100, 100])

    assert guards_of(before, after, counts=counts)["test_accuracy"].value == 0


def test_a_removed_class_must_not_be_answered_above_chance():
    before = observed(labels=torch.zeros(40).long())
    gone = replace(before, holdout=flipped(before.holdout, 40, label=0))
    counts = torch.tensor([0, 100, 100, 100])

    kept = guards_of(before, before, removing=True, counts=counts)["concept_removed"]
    lost = guards_of(before, gone, removing=True, counts=counts)["concept_removed"]

    assert kept.expected == kept.threshold == 1 / CLASSES
    assert not kept.passed
    assert lost.passed
    assert lost.low < lost.value
    assert "concept_removed" not in guards_of(before, before, counts=counts)
