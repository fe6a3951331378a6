"""The exchangeability tests on synthetic outputs, where every figure is known."""

from dataclasses import replace

import pytest
import torch

from tests.worker.unlearning.audit.synthetic import CLASSES, COUNTS, by_name, observed, seeded, seen
from worker.unlearning.alignment import alignment, eigenspace
from worker.unlearning.audit.family import ALPHA
from worker.unlearning.audit.verdict import ReferenceScores, exchangeability, scaled_confidence
from worker.unlearning.evaluation import Observed, Outputs, membership_auc, retain_moments


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


def test_a_class_that_a_draw_loses_is_not_compared(monkeypatch):
    monkeypatch.setattr("worker.unlearning.audit.pair.AUDITED", 40)
    rare = torch.zeros(400).long()
    rare[0] = 1
    found = exchangeability(observed(labels=rare, holdout=400), class_counts=COUNTS)
    assert all(0 <= test.p_value <= 1 and abs(test.value) < 10 for test in found.tests)
    assert {test.forget_samples for test in found.tests} <= {39, 40}
