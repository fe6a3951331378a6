import math

import pytest
import torch

from worker.unlearning.audit.verdict import scaled_confidence
from worker.unlearning.reference_models import PRIOR, Summary, halves


def summed(answers, labels, seen, holdout_answers, holdout_labels, shared_out, *, block=4):
    """The summary of networks with these answers (K, N, C), added in blocks."""
    summary = Summary(len(labels), len(holdout_labels), answers.shape[2])
    for network in range(len(answers)):
        for first in range(0, len(labels), block):
            rows = slice(first, first + block)
            summary.add(first, answers[network, rows], labels[rows], seen[network, rows])
        summary.add_holdout(0, holdout_answers[network], holdout_labels, shared_out[network])
    return summary.result(len(answers))


@pytest.fixture
def case(generator):
    def make(networks: int, training: int = 9, holdout: int = 5, classes: int = 3):
        return {
            "answers": 3 * torch.randn(networks, training, classes, generator=generator),
            "labels": torch.randint(classes, (training,), generator=generator),
            "seen": halves(training, networks, generator),
            "holdout_answers": 3 * torch.randn(networks, holdout, classes, generator=generator),
            "holdout_labels": torch.randint(classes, (holdout,), generator=generator),
            "shared_out": halves(holdout, networks, generator),
        }

    return make


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("count", [2, 7, 100])
def test_each_sample_is_seen_by_half_of_the_networks(count, generator):
    seen = halves(count, 6, generator)

    assert seen.sum(0).tolist() == [3] * count
    assert all((~seen[pair] == seen[pair + 1]).all() for pair in (0, 2, 4))
    assert set(seen.sum(1).tolist()) <= {count // 2, count - count // 2}


@pytest.mark.parametrize("networks", [0, 1, 3])
def test_networks_come_in_pairs(networks, generator):
    with pytest.raises(ValueError, match="pairs"):
        halves(10, networks, generator)


def test_predictions_are_the_mean_of_those_that_never_saw_the_sample(case):
    given = case(4)

    found = summed(**given)

    for sample in range(9):
        unseen = given["answers"][~given["seen"][:, sample], sample].softmax(1)
        assert torch.allclose(found.predictions[sample], unseen.mean(0), atol=1e-6)


def test_means_are_those_of_each_side(case):
    given = case(6)

    found = summed(**given)

    for sample in range(9):
        scores = scaled_confidence(given["answers"][:, sample], given["labels"][sample].expand(6))
        seen = given["seen"][:, sample]
        assert found.seen.mean[sample].item() == pytest.approx(scores[seen].mean().item())
        assert found.unseen.mean[sample].item() == pytest.approx(scores[~seen].mean().item())
    scores = scaled_confidence(given["holdout_answers"][:, 0], given["holdout_labels"][0].expand(6))
    half = scores[~given["shared_out"][:, 0]]
    assert found.holdout.mean[0].item() == pytest.approx(half.mean().item())


def test_deviations_are_shrunk_towards_the_pooled_one(case):
    given = case(4)

    found = summed(**given)

    def scatter(scores):
        return (scores - scores.mean()).square().sum().item()

    own, of_all = [], []
    for sample in range(9):
        scores = scaled_confidence(given["answers"][:, sample], given["labels"][sample].expand(4))
        own.append(scatter(scores[~given["seen"][:, sample]]))
    for sample in range(5):
        label = given["holdout_labels"][sample].expand(4)
        of_all.append(scatter(scaled_confidence(given["holdout_answers"][:, sample], label)))
    pooled = (sum(own) + sum(of_all)) / (9 * 1 + 5 * 3)
    expected = [math.sqrt((PRIOR * pooled + each) / (PRIOR + 1)) for each in own]
    assert found.unseen.std.tolist() == pytest.approx(expected)


def test_two_networks_have_one_deviation_for_all(case):
    found = summed(**case(2))

    everywhere = torch.cat([found.seen.std, found.unseen.std, found.holdout.std])
    assert everywhere.min() > 0
    assert torch.allclose(everywhere, everywhere[0])


def test_networks_that_answer_alike_have_a_deviation_above_zero(case):
    given = case(2)
    given["answers"][:] = given["answers"][:1].clone()
    given["holdout_answers"][:] = given["holdout_answers"][:1].clone()

    assert summed(**given).unseen.std.min() > 0


def test_holdout_samples_are_needed(case):
    with pytest.raises(ValueError, match="hold-out"):
        summed(**case(2, holdout=0))


def test_unseen_and_holdout_samples_score_alike(generator):
    count, networks, classes = 4000, 4, 5
    labels = torch.randint(classes, (2, count), generator=generator)
    hardness = torch.randn(2, count, 1, generator=generator)  # in common to all networks
    answers = torch.randn(2, networks, count, classes, generator=generator) + hardness[:, None]
    fresh = torch.randn(2, count, classes, generator=generator) + hardness

    found = summed(
        answers[0], labels[0], halves(count, networks, generator),
        answers[1], labels[1], halves(count, networks, generator), block=count,
    )  # fmt: skip

    scores = [scaled_confidence(fresh[side], labels[side]) for side in range(2)]
    training = (scores[0] - found.unseen.mean) / found.unseen.std
    holdout = (scores[1] - found.holdout.mean) / found.holdout.std
    assert abs(training.mean() - holdout.mean()) < 0.1
    assert 0.95 < training.std() / holdout.std() < 1.05
