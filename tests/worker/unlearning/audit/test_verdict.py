"""The verdict on synthetic outputs, where every figure is known."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from worker.unlearning.alignment import alignment, eigenspace
from worker.unlearning.audit.exchangeability import ALPHA
from worker.unlearning.audit.verdict import (
    Limits,
    ReferenceScores,
    Verdict,
    audit,
    exchangeability,
    scaled_confidence,
)
from worker.unlearning.evaluation import Observed, Outputs, membership_auc, retain_moments

CLASSES, WIDTH = 4, 6
COUNTS = torch.full((CLASSES,), 100)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def seen(count, generator, *, memorised=0.0, labels=None, shrink=1.0):
    """Outputs of a model: features near the class mean, and nearer when it is memorised."""
    labels = torch.arange(count) % CLASSES if labels is None else labels
    centres = 2.5 * F.one_hot(labels, WIDTH)
    noise = torch.randn(len(labels), WIDTH, generator=generator)
    features = shrink * (centres * (1 + memorised) + noise * (1 - memorised))
    return Outputs(features, features[:, :CLASSES], labels)


def observed(*, forget=60, holdout=200, memorised=0.0, seed=0, shrink=1.0, labels=None):
    generator = seeded(seed)
    return Observed(
        forget=seen(forget, generator, memorised=memorised, labels=labels, shrink=shrink),
        retain=seen(200, generator),
        holdout=seen(holdout, generator),
        test=seen(300, generator),
    )


def judged(before, after, *, removing=False, counts=COUNTS, **arguments):
    return audit(
        before, after, class_counts=counts, removing=removing, limits=Limits(), **arguments
    )


def by_name(family):
    return {test.name: test for test in family.tests}


def outputs(logits, labels, features=None):
    logits = torch.tensor(logits, dtype=torch.float32)
    features = torch.zeros(len(labels), 2) if features is None else torch.tensor(features)
    return Outputs(features, logits, torch.tensor(labels))


def family(forget, holdout, retain=None, counts=(5, 5), **arguments):
    retain = holdout if retain is None else retain
    return by_name(
        exchangeability(
            Observed(forget=forget, retain=retain, holdout=holdout, test=None),
            class_counts=torch.tensor(counts),
            permutations=200,
            **arguments,
        )
    )


def test_membership_is_the_auc_within_classes_and_ties_count_half():
    forget = outputs([[3.0, 0], [1, 0], [0, 4.0]], [0, 0, 1])
    holdout = outputs([[2.0, 0], [1, 0], [0, 5.0], [0, 4.0]], [0, 0, 1, 1])

    found = family(forget, holdout)

    first, second = (1 + 1 + 0 + 0.5) / 4, (0 + 0.5) / 2
    for name in ("membership_loss", "membership_margin"):
        assert found[name].value == pytest.approx((2 * first + second) / 3)
        assert found[name].expected == 0.5


def test_in_one_class_membership_is_the_auc_of_the_evaluation():
    labels = torch.zeros(30).long()
    forget, holdout = (seen(0, seeded(s), labels=labels) for s in (1, 2))
    found = family(forget, holdout, counts=(5, 5, 5, 5))
    assert found["membership_loss"].value == pytest.approx(membership_auc(forget, holdout))


def test_accuracy_is_compared_in_the_class_mix_of_the_forget_set():
    forget = outputs([[1.0, 0], [1, 0], [1, 0], [1, 0]], [0, 0, 0, 1])
    holdout = outputs([[1.0, 0], [0, 1.0], [0, 1.0], [0, 1.0], [0, 1.0]], [0, 0, 1, 1, 1])
    assert family(forget, holdout)["accuracy"].value == pytest.approx(3 / 4 - (3 * 0.5 + 1) / 4)


def test_alignment_and_norm_are_differences_of_means():
    labels = torch.zeros(20).long()
    forget, holdout, retain = (seen(0, seeded(s), labels=labels) for s in (1, 2, 3))
    retain = replace(retain, labels=torch.arange(20) % CLASSES)

    found = family(forget, holdout, retain, counts=(5, 5, 5, 5), k=2)

    space = eigenspace(retain_moments(retain, torch.tensor([5, 5, 5, 5])), k=2)
    aligned = [alignment(o.features.double(), space).mean().item() for o in (forget, holdout)]
    assert found["alignment"].value == pytest.approx(aligned[0] - aligned[1])
    norms = [o.features.double().norm(dim=1).log().mean().item() for o in (forget, holdout)]
    assert found["feature_norm"].value == pytest.approx(norms[0] - norms[1])


def test_the_probe_reads_features_whatever_the_logits_say():
    after = observed(memorised=0.9)
    blind = replace(after, forget=replace(after.forget, logits=torch.zeros(60, CLASSES)))
    assert by_name(exchangeability(blind, class_counts=COUNTS))["probe_accuracy"].value > 0.05


def test_scaled_confidence_is_the_log_odds_even_where_they_are_extreme():
    logits, labels = torch.tensor([[2.0, 0.5, 0.1], [900.0, 0, 0]]), torch.tensor([0, 1])
    p = logits.double().softmax(1)[0, 0]

    confidence = scaled_confidence(logits, labels)

    assert confidence[0].item() == pytest.approx((p / (1 - p)).log().item())
    assert confidence[1].item() == pytest.approx(-900)


def test_scores_under_reference_models_are_standardised_by_sample():
    generator = seeded(5)
    hard = torch.randn(260, generator=generator) * 3  # what any model thinks of each sample

    def shown(luck):
        logits = torch.stack([hard + luck, torch.zeros(260)], 1)
        outputs = Outputs(torch.randn(260, 2, generator=seeded()), logits, torch.zeros(260).long())
        first = torch.arange(260) < 60
        return Observed(
            forget=outputs.select(first),
            retain=outputs.select(~first),
            holdout=outputs.select(~first),
            test=None,
        )

    references = ReferenceScores(
        forget_mean=hard[:60], forget_std=torch.ones(60),
        holdout_mean=hard[60:], holdout_std=torch.ones(200),
    )  # fmt: skip
    luck = torch.randn(260, generator=generator)
    bumped = luck + torch.where(torch.arange(260) < 60, 1.0, 0.0)
    counts = torch.tensor([100, 100])

    without = exchangeability(shown(bumped), class_counts=counts)
    neutral = exchangeability(shown(luck), class_counts=counts, references=references)
    found = exchangeability(shown(bumped), class_counts=counts, references=references)

    assert not neutral.rejected
    member = by_name(found)["membership_per_sample"]
    # two normals one deviation apart: Phi(1 / sqrt 2)
    assert member.value == pytest.approx(0.76, abs=0.06)
    assert member.p_value < 0.01 < without.p_value


def test_a_hard_forget_set_is_not_mistaken_for_one_when_reference_models_know_it_is_hard():
    generator = seeded(3)
    hard = torch.randn(500, generator=generator) * 2 + 1
    forgotten = torch.zeros(500, dtype=torch.bool)
    forgotten[hard.argsort()[:50]] = True  # the hardest
    logits = torch.stack([hard + torch.randn(500, generator=generator), torch.zeros(500)], 1)
    every = Outputs(torch.randn(500, 2, generator=generator), logits, torch.zeros(500).long())
    guess = hard + torch.randn(500, generator=generator) / 2
    shown = Observed(
        forget=every.select(forgotten),
        retain=every.select(~forgotten),
        holdout=every.select(~forgotten),
        test=None,
    )
    references = ReferenceScores(
        forget_mean=guess[forgotten], forget_std=torch.ones(50),
        holdout_mean=guess[~forgotten], holdout_std=torch.ones(450),
    )  # fmt: skip
    counts = torch.tensor([300, 200])

    assert exchangeability(shown, class_counts=counts).rejected
    assert not exchangeability(shown, class_counts=counts, references=references).rejected


def test_never_trained_samples_are_rejected_at_the_promised_rate_however_correlated_the_tests():
    runs = [
        exchangeability(
            observed(forget=20, holdout=40, seed=seed),
            class_counts=COUNTS,
            permutations=99,
            seed=seed,
        )
        for seed in range(200)
    ]
    rate = sum(run.rejected for run in runs) / len(runs)
    assert 0.01 <= rate <= ALPHA + 3 * (ALPHA * (1 - ALPHA) / 200) ** 0.5


def test_memorised_samples_are_rejected():
    runs = [
        exchangeability(
            observed(forget=30, memorised=0.5, seed=seed), class_counts=COUNTS, permutations=99
        )
        for seed in range(20)
    ]
    assert all(run.rejected for run in runs)


def test_the_same_seed_gives_the_same_figures():
    first, second, other = (
        exchangeability(observed(), class_counts=COUNTS, permutations=99, seed=seed)
        for seed in (1, 1, 2)
    )
    assert first == second
    assert first != other


def test_what_passes_is_what_lies_within_its_interval_and_its_threshold():
    for memorised in (0.0, 0.1, 0.5):
        for test in exchangeability(observed(memorised=memorised), class_counts=COUNTS).tests:
            assert test.passed == (test.low <= test.expected <= test.high)
            assert test.passed == (abs(test.value - test.expected) <= test.threshold)
            assert test.passed == (test.p_value > ALPHA)


def test_a_model_that_treats_them_as_unseen_passes():
    found = judged(observed(memorised=0.5), observed())

    assert found.verdict is Verdict.PASS
    assert "never trained on these samples" in found.reason
    assert all(test.passed for test in (*found.tests, *found.guards))
    assert not all(test.passed for test in found.before)


def test_a_model_left_as_it_was_fails():
    found = judged(observed(memorised=0.5), observed(memorised=0.5))

    assert found.verdict is Verdict.FAIL
    assert "membership by loss (AUC)" in found.reason


def test_where_nothing_was_memorised_there_is_no_power():
    found = judged(observed(), observed())

    assert found.verdict is Verdict.NO_POWER
    assert "would have passed" in found.reason


def test_answers_worse_than_on_unseen_samples_fail_too():
    after = observed()
    hidden = replace(after.forget, logits=-after.forget.logits)

    found = judged(observed(memorised=0.5), replace(after, forget=hidden))

    assert found.verdict is Verdict.FAIL
    assert {t.name: t for t in found.tests}["membership_loss"].value < 0.2


def test_features_that_stay_memorised_behind_a_changed_head_fail():
    before = observed(memorised=0.5)
    masked = replace(before.forget, logits=observed(seed=9).forget.logits)

    found = judged(before, replace(before, forget=masked))

    assert found.verdict is Verdict.FAIL
    assert "membership by loss" not in found.reason
    assert "log norm" in found.reason


def test_collapsed_forget_features_fail():
    after = observed()
    nowhere = replace(after.forget, features=torch.zeros(60, WIDTH))
    assert judged(observed(memorised=0.5), replace(after, forget=nowhere)).verdict is Verdict.FAIL


def constant(outputs):
    return replace(
        outputs,
        features=torch.ones_like(outputs.features),
        logits=torch.zeros_like(outputs.logits),
    )


def test_one_answer_to_everything_fails_by_what_it_lost():
    after = observed()
    sets = {
        name: constant(getattr(after, name)) for name in ("forget", "retain", "holdout", "test")
    }

    found = judged(observed(memorised=0.5), Observed(**sets))

    assert found.verdict is Verdict.FAIL
    assert all(test.passed for test in found.tests)
    assert [test.passed for test in found.guards] == [False, False]


def test_answers_that_are_not_finite_fail():
    after = observed()
    broken = replace(after.test, logits=after.test.logits / 0)

    found = judged(observed(memorised=0.5), replace(after, test=broken))

    assert found.verdict is Verdict.FAIL
    assert "not finite" in found.reason


@pytest.mark.parametrize("memorised", [0.0, 0.5])
def test_one_sample_is_compared_with_what_there_is(memorised):
    one = observed(forget=1, memorised=memorised)

    found = judged(one, one)

    assert found.verdict in (Verdict.NO_POWER, Verdict.FAIL)
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

    assert found.verdict is Verdict.NO_POWER
    assert found.tests == ()
    assert "No forget sample can be compared" in found.reason


def test_large_sets_are_drawn_from_and_say_so(monkeypatch):
    monkeypatch.setattr("worker.unlearning.audit.exchangeability.AUDITED", 40)
    found = judged(observed(), observed())
    assert {(t.forget_samples, t.holdout_samples) for t in found.tests} == {(40, 40)}
    assert "40 of 60 forget samples were drawn" in found.reason


def test_a_class_that_a_draw_loses_is_not_compared(monkeypatch):
    monkeypatch.setattr("worker.unlearning.audit.exchangeability.AUDITED", 40)
    rare = torch.zeros(400).long()
    rare[0] = 1
    found = exchangeability(observed(labels=rare, holdout=400), class_counts=COUNTS)
    assert all(0 <= test.p_value <= 1 and abs(test.value) < 10 for test in found.tests)
    assert {test.forget_samples for test in found.tests} <= {39, 40}


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
