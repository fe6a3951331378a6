"""What a network's accuracy gives away when it is registered."""

import numpy as np
import pytest
import torch

from domain.errors import JobError
from evidence import wording
from worker.jobs.plausibility import (
    Answered,
    require_plausible,
    sampling_error,
    worse_by_evidence,
)


def answered(*classes: tuple[int, int]) -> Answered:
    """Of each class, how many were answered correctly and how many were shown."""
    right, shown = zip(*classes, strict=True)
    return Answered(torch.tensor(right), torch.tensor(shown))


def checked(train, holdout, *, size=None, expected=None, accepted=False):
    if expected is not None:
        expected = {"train": None, "holdout": None, "tolerance": 0.01, **expected}
    return require_plausible(
        train,
        holdout,
        holdout_size=size or holdout.samples,
        expected=expected,
        accepted=accepted,
    )


SOUND = answered((98, 100), (99, 100)), answered((90, 100), (92, 100))


def test_a_sound_network_is_registered_without_a_word():
    found = checked(*SOUND)

    assert (found["train"], found["holdout"]) == (0.985, 0.91)
    assert (found["chance"], found["objections"]) == (0.5, [])
    assert wording.accepted_accuracy(found) is None


@pytest.mark.parametrize(
    ("train", "classes"),
    [
        (answered(*[(10, 100)] * 10), 10),  # guesses
        (answered(*[(14, 100)] * 10), 10),
        (answered((1000, 1000), *[(0, 100)] * 9), 10),  # one answer to everything
        (answered((950, 950), (0, 50)), 2),  # the same: right in 95 of 100 cases
        (answered((900, 950), (10, 50)), 2),
    ],
)
def test_a_network_that_guesses_is_refused_however_unequal_the_classes_are(train, classes):
    with pytest.raises(JobError, match="no better than chance") as refused:
        checked(train, train)

    told = str(refused.value)
    assert f"{train.accuracy:.4f}" in told
    assert f"{1 / classes:.4f} is chance" in told
    for what_to_do in ("preprocessing", "order of the classes", "weights", "`expected_accuracy`"):
        assert what_to_do in told


@pytest.mark.parametrize(
    "train",
    [
        answered(*[(16, 100)] * 10),
        answered((945, 950), (45, 50)),  # unequal classes, and it knows both
        answered((40, 40), (0, 0)),  # one class: there is nothing to tell apart
        answered(*[(2, 1000)] * 1000),  # a thousand classes
    ],
)
def test_what_is_better_than_chance_is_not_refused(train):
    assert checked(train, train)["objections"] == []


def test_training_samples_answered_worse_than_the_holdout_are_an_objection():
    train, holdout = answered((700, 1000), (900, 1000)), answered((180, 200), (182, 200))

    with pytest.raises(JobError, match="worse than its hold-out"):
        checked(train, holdout)


@pytest.mark.parametrize(
    ("train", "holdout"),
    [
        (answered((8, 10), (9, 10)), answered((10, 10), (10, 10))),  # too few to say
        (answered((985, 1000), (985, 1000)), answered((990, 1000), (991, 1000))),  # by too little
        # Each class is answered alike; there is more of the easy one in the hold-out.
        (answered((500, 1000), (100, 100)), answered((5, 10), (1000, 1000))),
    ],
)
def test_chance_a_trifle_and_another_mix_of_classes_are_no_objection(train, holdout):
    assert not worse_by_evidence(train, holdout)


def test_networks_that_are_as_they_should_be_are_hardly_ever_refused():
    """Training samples and hold-out answered alike, a thousand times."""
    rng = np.random.default_rng(0)
    sizes, rates = np.array([300, 300, 60]), np.array([0.9, 0.7, 0.5])
    objected = 0
    for _ in range(1000):
        train = Answered(*map(torch.tensor, (rng.binomial(sizes, rates), sizes)))
        holdout = Answered(*map(torch.tensor, (rng.binomial(sizes // 2, rates), sizes // 2)))
        objected += worse_by_evidence(train, holdout)
    assert objected <= 5


def test_what_is_accepted_is_noted_and_said():
    guesses = answered(*[(10, 100)] * 10)

    found = checked(guesses, guesses, accepted=True)

    assert (found["accepted"], found["objections"]) == (True, ["no_better_than_chance"])
    said = wording.accepted_accuracy(found)
    assert "no better than chance" in said
    assert "accuracy 0.100 on 1000 training samples and 0.100 on 1000 hold-out samples" in said
    assert "`accept_accuracy`" in said


def test_what_was_accepted_without_need_is_said_too():
    found = checked(*SOUND, accepted=True)

    assert "nothing was objected to it" in wording.accepted_accuracy(found)


@pytest.mark.parametrize(
    "expected", [{"train": 0.99}, {"train": 0.975, "holdout": 0.92}, {"holdout": 0.901}]
)
def test_what_the_team_measured_is_what_lethe_measures(expected):
    assert checked(*SOUND, expected=expected)["expected"]["tolerance"] == 0.01


@pytest.mark.parametrize(
    ("expected", "both"),
    [
        ({"train": 0.999}, ("0.9850", "0.999")),
        ({"train": 0.985, "holdout": 0.95}, ("0.9100", "0.95")),
        ({"train": 0.5}, ("0.9850", "0.5")),  # better than stated is another network, too
        ({"train": 0.985, "holdout": 0.8, "tolerance": 0.1}, ("0.9100", "0.8")),
    ],
)
@pytest.mark.parametrize("accepted", [True, False])
def test_another_accuracy_than_the_team_measured_is_refused_with_both(expected, both, accepted):
    with pytest.raises(JobError) as refused:
        checked(*SOUND, expected=expected, accepted=accepted)

    for figure in both:
        assert figure in str(refused.value)
    assert "order of the classes" in str(refused.value)


def test_a_stated_accuracy_near_chance_is_believed():
    guesses = answered(*[(10, 100)] * 10)

    assert checked(guesses, guesses, expected={"train": 0.1})["objections"] == []


def test_an_accuracy_on_samples_that_there_are_not_is_refused():
    nobody = answered((0, 0), (0, 0))

    with pytest.raises(JobError, match="has no holdout samples"):
        checked(SOUND[0], nobody, expected={"holdout": 0.9})


def test_a_draw_from_the_holdout_may_differ_by_chance_and_all_of_it_may_not():
    drawn = answered((8, 10), (9, 10))

    checked(SOUND[0], drawn, size=2000, expected={"holdout": 0.93})
    with pytest.raises(JobError, match=r"0\.8500"):
        checked(SOUND[0], drawn, size=20, expected={"holdout": 0.93})
    assert sampling_error(0.9, 0.9, 0.01, drawn=500, of=500) == 0.0


def test_a_draw_hardly_ever_refuses_the_right_accuracy():
    rng = np.random.default_rng(1)
    for size, rate, drawn in ((5000, 0.91, 150), (5000, 0.99, 150), (400, 0.7, 200)):
        right = round(size * rate)
        found = rng.hypergeometric(right, size - right, drawn, 4000) / drawn
        allowed = [0.01 + sampling_error(rate, each, 0.01, drawn=drawn, of=size) for each in found]
        assert (np.abs(found - rate) > allowed).mean() < 0.001
