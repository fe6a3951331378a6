"""The guards of loss and calibration, and the verdict on a retrained network, which rests on guards
alone."""

from dataclasses import replace

import pytest
import torch

from tests.worker.unlearning.audit.synthetic import COUNTS, constant, observed
from worker.unlearning.audit.exchangeability import ALPHA
from worker.unlearning.audit.guards import Limits, guards
from worker.unlearning.audit.retrained import by_construction
from worker.unlearning.audit.verdict import audit

NOTHING_LOST = torch.zeros(len(COUNTS), dtype=torch.bool)


def surer(outputs, times):
    """The same answers, given with more confidence."""
    return replace(outputs, logits=outputs.logits * times)


def found(before, after, *, lost=NOTHING_LOST, limits=Limits()):  # noqa: B008 (it is frozen)
    tests = guards(before, after, lost=lost, removing=False, limits=limits)
    return {test.name: test for test in tests}


@pytest.mark.parametrize(("name", "times"), [("nll", 20.0), ("ece", 0.3)])
def test_the_same_answers_with_wrong_confidence_fail(name, times):
    """Too sure costs loss, not sure enough calibration."""
    before = replace(observed(), test=surer(observed().test, 3))
    after = replace(before, test=surer(observed().test, times))

    seen = found(before, after)

    assert seen["test_accuracy"].value == 0
    rise = after.test.losses().mean() - before.test.losses().mean()
    assert seen["nll"].value == pytest.approx(rise.item())
    assert not seen[name].passed
    assert seen[name].threshold < seen[name].low < seen[name].value
    assert seen[name].p_value < ALPHA
    wide = found(before, after, limits=Limits(max_nll_increase=9.0, max_ece_increase=1.0))
    assert wide[name].passed


def test_a_rise_that_is_not_sure_passes():
    few = replace(observed(), test=observed().test.select(torch.arange(300) < 8))
    after = replace(few, test=surer(few.test, 9))

    seen = found(few, after)

    assert seen["nll"].value > seen["nll"].threshold
    assert seen["nll"].passed


def test_the_same_network_rises_in_nothing():
    same = observed()
    seen = found(same, same, limits=Limits(max_nll_increase=0.0, max_ece_increase=0.0))
    for name in ("nll", "ece"):
        assert (seen[name].value, seen[name].low, seen[name].passed) == (0.0, 0.0, True)


def test_the_calibration_error_is_how_far_confidence_is_from_accuracy():
    """Half of the answers are right, all of them given with a confidence of 0.9."""
    whole = observed().test
    labels = torch.arange(300) % 2
    logits = torch.full((300, 2), 0.0)
    logits[:, 0] = torch.tensor(0.9 / 0.1).log()
    sure = replace(whole, logits=logits, labels=labels)
    unsure = replace(sure, logits=torch.full((300, 2), 0.0))
    before, after = (replace(observed(), test=each) for each in (unsure, sure))

    assert found(before, after, lost=NOTHING_LOST[:2])["ece"].value == pytest.approx(0.4)


def test_classes_that_leave_do_not_count():
    before = observed()
    theirs = before.test.labels == 0
    logits = before.test.logits.clone()
    logits[theirs] *= -9
    after = replace(before, test=replace(before.test, logits=logits))

    seen = found(before, after, lost=torch.tensor([True, False, False, False]))

    assert (seen["nll"].value, seen["ece"].value) == (0.0, 0.0)
    assert seen["nll"].holdout_samples == 225


def judged(before, after):
    return audit(before, after, class_counts=COUNTS, removing=False, limits=Limits())


def test_no_test_holds_a_retrained_network_back():
    seen = judged(observed(memorised=0.5), observed(memorised=0.5))
    assert seen.fails

    retrained = by_construction(seen)

    assert (retrained.fails, retrained.has_power) == (False, True)
    assert retrained.tests == seen.tests
    assert "exact by construction" in retrained.reason
    assert "membership by loss (AUC)" in retrained.reason


def test_a_retrained_network_needs_no_power():
    assert by_construction(judged(observed(), observed())).has_power


def test_a_retrained_network_that_is_worth_too_little_fails_by_that_alone():
    after = observed(memorised=0.5)
    seen = judged(after, replace(after, test=constant(after.test)))

    retrained = by_construction(seen)

    assert retrained.fails
    assert "drop of test accuracy" in retrained.reason
    assert "membership" not in retrained.reason


def test_answers_that_are_not_finite_are_no_retraining():
    after = observed()
    broken = replace(after, test=replace(after.test, logits=after.test.logits / 0))

    assert by_construction(judged(observed(), broken)).fails
