"""Tested on a network whose first layer separates classes weakly and whose second layer has
memorised every training sample."""

from dataclasses import dataclass, replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from worker.unlearning import unseen_answers
from worker.unlearning.config import default_config
from worker.unlearning.network import LAYERS, WIDTH, Network
from worker.unlearning.samples import Samples
from worker.unlearning.unseen_answers import as_if_unseen, ease_told, shrunk

CLASSES, TRAIN, HOLDOUT, CERTAIN = 4, 1200, 600, 8.0


class Classifier(nn.Module):
    """Its head adds up what a sample looks like, and what was learnt by heart: the label of each
    training sample, by the number that it carries."""

    def __init__(self, labels):
        super().__init__()
        self.register_buffer("known", F.one_hot(labels, CLASSES).float())
        self.first = nn.Linear(CLASSES, CLASSES, bias=False)
        self.head = nn.Linear(2 * CLASSES, CLASSES, bias=False)
        with torch.no_grad():
            self.first.weight.copy_(torch.eye(CLASSES))
            self.head.weight.copy_(torch.eye(CLASSES).repeat(1, 2))

    def forward(self, inputs):
        number = inputs[:, -1].long()
        memory = self.known[number.clamp_max(TRAIN - 1)] * (number < TRAIN)[:, None]
        return self.head(torch.cat([self.first(inputs[:, :-1]), CERTAIN * memory], 1))


@dataclass
class Problem:
    network: Network
    train: Samples
    holdout: Samples
    truth: torch.Tensor
    """(TRAIN,) what each sample looks like."""

    wrong: torch.Tensor
    """(TRAIN,) bool, one in ten: the samples with another label."""

    def told(self, forgotten, **change):
        retain = self.train.select(~forgotten)
        config = default_config(
            removing=False,
            forget_count=int(forgotten.sum()),
            reservoir_count=len(retain),
        )
        return as_if_unseen(
            self.network,
            forget=self.train.select(forgotten),
            retain=retain,
            holdout=self.holdout,
            class_counts=retain.labels.bincount(minlength=CLASSES),
            config=replace(config, **change),
            generator=torch.Generator().manual_seed(0),
        )


@pytest.fixture
def problem():
    generator = torch.Generator().manual_seed(0)
    number = torch.arange(TRAIN + HOLDOUT)
    truth = number % CLASSES
    looks = F.one_hot(truth, CLASSES) + 0.5 * torch.randn(len(number), CLASSES, generator=generator)
    wrong = (number % 10 == 3) & (number < TRAIN)
    labels = torch.where(wrong, (truth + 1) % CLASSES, truth)
    every = Samples(torch.cat([looks, number[:, None]], 1), labels)
    return Problem(
        network=Network(Classifier(labels[:TRAIN]).eval(), head="head", prepare=torch.Tensor.float),
        train=every.select(number < TRAIN),
        holdout=every.select(number >= TRAIN),
        truth=truth[:TRAIN],
        wrong=wrong[:TRAIN],
    )


def right(answers, labels):
    return (answers.argmax(1) == labels).float().mean().item()


def accuracy(network, samples):
    return right(network.outputs(samples, 100)[1], samples.labels)


def test_mislabelled_samples_are_answered_by_what_they_look_like(problem):
    assert accuracy(problem.network, problem.train.select(problem.wrong)) > 0.95

    found = problem.told(problem.wrong)

    assert right(found.answers, problem.truth[problem.wrong]) > 0.6
    assert right(found.answers, problem.train.labels[problem.wrong]) < 0.25
    assert found.ease.median() < 0.1


def test_ordinary_samples_are_answered_as_rightly_as_unseen_ones(problem):
    forgotten = (torch.arange(TRAIN) % 10 == 0) & ~problem.wrong

    found = problem.told(forgotten)

    expected = accuracy(problem.network, problem.holdout)
    assert 0.6 < expected < 0.9
    assert right(found.answers, problem.train.labels[forgotten]) == pytest.approx(expected, abs=0.1)
    assert abs(found.ease.mean().item() - 0.5) < 0.1


def test_however_many_classes_there_are_each_tells_how_hard_its_own_samples_are(
    problem, monkeypatch
):
    """Class 0 is the easiest: its samples are as hard as others of it, not as others of all."""
    monkeypatch.setattr(unseen_answers, "UNSEEN", CLASSES)
    forgotten = (torch.arange(TRAIN) % 10 == 0) & ~problem.wrong
    for samples in (problem.train, problem.holdout):
        samples.inputs[samples.labels == 0, 0] += 3

    found = problem.told(forgotten)

    easy = problem.train.labels[forgotten] == 0
    assert abs(found.ease[easy].mean().item() - 0.5) < 0.2
    assert abs(found.ease[~easy].mean().item() - 0.5) < 0.2


def test_the_share_of_the_early_layer_may_be_set(problem):
    one = torch.arange(TRAIN) == problem.wrong.nonzero()[0]

    alone, none = (problem.told(one, early_share=share) for share in (1.0, 0.0))
    mixed = problem.told(one, early_share=0.25)

    torch.testing.assert_close(mixed.answers, 0.25 * alone.answers + 0.75 * none.answers)


def test_where_every_layer_memorised_only_the_models_own_answers_are_left(problem):
    network = problem.network
    network.model.first = nn.Identity()  # no layer now, and the head betrays
    forgotten = torch.arange(TRAIN) % 10 == 0

    found = problem.told(forgotten)

    assert found.answers.shape == (120, CLASSES)
    assert found.ease.mean().item() == pytest.approx(0.5)
    labels = problem.train.labels[forgotten]
    assert right(found.answers, labels) == pytest.approx(
        accuracy(network, problem.holdout), abs=0.1
    )


def test_a_holdout_of_leaving_classes_only_still_calibrates(problem):
    leaving = problem.train.labels == 1
    problem.holdout = problem.holdout.select(problem.holdout.labels == 1)

    found = problem.told(leaving)

    assert found.answers.isfinite().all()
    torch.testing.assert_close(found.answers.sum(1), torch.ones(len(found.answers)))


def test_layers_are_told_by_few_numbers_of_what_enters_them():
    model = nn.Sequential(
        nn.Conv2d(3, 40, 3, padding=1), nn.ReLU(), nn.Conv2d(40, 600, 3, padding=1),
        nn.AdaptiveAvgPool2d(8), nn.Conv2d(600, 6, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(6, 4),
    )  # fmt: skip
    network = Network(model.train(), head="7", prepare=torch.Tensor.float)
    images = torch.randint(256, (5, 3, 8, 8), dtype=torch.uint8)
    samples = Samples(images, torch.zeros(5, dtype=torch.int64))

    entering, logits = network.entering(samples, network.layers, 2)

    shapes = {name: tuple(each.shape) for name, each in entering.items()}
    assert shapes == {"0": (5, 3 * 16), "2": (5, 40 * 4), "4": (5, WIDTH), "7": (5, 6)}
    parts = images.float().unflatten(3, (4, 2)).unflatten(2, (4, 2)).mean((3, 5))
    torch.testing.assert_close(entering["0"], parts.flatten(1))
    features, expected = network.outputs(samples, 5)
    torch.testing.assert_close(entering["7"], features)
    torch.testing.assert_close(logits, expected)
    assert model.training


def test_of_many_layers_a_few_are_looked_at_the_first_and_the_head_among_them():
    model = nn.Sequential(*(nn.Linear(3, 3) for _ in range(20)))
    network = Network(model, head="19", prepare=torch.Tensor.float)

    assert len(network.layers) == LAYERS
    assert {"0", "19"} <= set(network.layers)


def test_a_reservoir_of_one_sample_is_enough_to_calibrate(problem):
    forgotten = torch.arange(TRAIN) > 0

    assert problem.told(forgotten).answers.shape == (TRAIN - 1, CLASSES)


def test_of_sequences_the_mean_is_kept():
    class Reader(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.mix = nn.Embedding(9, 5), nn.Linear(5, 5)
            self.head, self.never = nn.Linear(5, 2), nn.Linear(5, 5)

        def forward(self, tokens):
            return self.head(self.mix(self.embedding(tokens))[:, 0])

    network = Network(Reader(), head="head", prepare=torch.Tensor.long)
    samples = Samples(torch.randint(9, (6, 7)), torch.zeros(6, dtype=torch.int64))

    found, _ = network.entering(samples, network.layers, 4)

    assert set(found) == {"mix", "head"}
    torch.testing.assert_close(
        found["mix"], network.model.embedding(samples.inputs).mean(1).detach()
    )


def test_networks_that_have_not_seen_samples_tell_how_easy_they_are(problem):
    """Hard for the first network, easy for the second; the third has seen them."""
    labels, unseen_labels = torch.tensor([0, 1]), torch.arange(40) % 2
    unseen = torch.linspace(0, 1, 40).repeat(3, 1)
    scores = torch.tensor([[-1.0, 0.2], [2.0, 0.8], [9.0, 9.0]])
    seen = torch.tensor([[False, False], [False, False], [True, True]])

    found = ease_told(scores, seen, labels, unseen, unseen_labels)

    assert found.tolist() == pytest.approx([0.5, 0.5], abs=0.03)
    chosen = torch.arange(TRAIN) < 40
    told = as_if_unseen(
        problem.network,
        forget=problem.train.select(chosen),
        retain=problem.train.select(~chosen),
        holdout=problem.holdout,
        class_counts=torch.full((CLASSES,), 290),
        config=default_config(removing=False, forget_count=40, reservoir_count=1160),
        generator=torch.Generator().manual_seed(0),
        ease=found[:1].expand(40),
    )
    assert told.ease.unique().tolist() == found[:1].tolist()


def test_what_a_layer_remembers_of_samples_makes_them_no_easier_than_others_it_remembers(problem):
    """The first 150 samples are like all the others of the training split: half are harder."""
    drawn = torch.arange(TRAIN) < 150
    memorised = problem.network.copy()
    with torch.no_grad():
        memorised.model.first.weight.zero_()

    told = replace(problem, network=memorised).told(drawn)

    assert told.ease.mean().item() == pytest.approx(0.5, abs=0.06)


@pytest.mark.parametrize(("mean", "left"), [(0.54, 0.52), (0.46, 0.48), (0.1, 0.129), (0.5, 0.5)])
def test_places_like_those_of_a_random_draw_are_moved_half_way_to_it(mean, left):
    """Those of an unusual set are not: a reader's noise is no larger than that of a draw."""
    places = mean + torch.linspace(-0.05, 0.05, 100)
    assert shrunk(places).mean().item() == pytest.approx(left, abs=0.001)
