"""The head of a frozen backbone as a convex problem: right, and the same to the last bit."""

import pytest
import torch
from sklearn.linear_model import LogisticRegression

from worker.unlearning import softmax_regression
from worker.unlearning.errors import UnlearningError
from worker.unlearning.softmax_regression import BLOCK, fit

CLASSES = 4


def problem(count=1500, dimensions=12):
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(count, dimensions, generator=generator)
    directions = torch.randn(dimensions, CLASSES, generator=generator)
    noise = torch.randn(count, CLASSES, generator=generator)
    return features, (features @ directions + noise).argmax(1)


def blocks(features, labels):
    return lambda: zip(features.split(BLOCK), labels.split(BLOCK), strict=True)


@pytest.mark.parametrize("bias", [True, False])
def test_is_the_minimum_that_others_find(bias):
    features, labels = problem()
    count = len(labels)

    found = fit(blocks(features, labels), classes=CLASSES, l2=1e-3, bias=bias)

    wide = torch.cat([features, torch.ones(count, 1)], 1) if bias else features  # penalised, too
    theirs = LogisticRegression(
        C=1 / (count * 1e-3), fit_intercept=False, solver="newton-cg", tol=1e-10, max_iter=500
    ).fit(wide.double().numpy(), labels.numpy())
    mine = found.weight if found.bias is None else torch.cat([found.weight, found.bias[:, None]], 1)
    assert (found.bias is None) is not bias
    assert torch.allclose(mine, torch.from_numpy(theirs.coef_), atol=1e-6)
    assert found.gradient <= softmax_regression.TOLERANCE


def test_the_bits_depend_neither_on_threads_nor_on_memory(monkeypatch):
    features, labels = problem()
    before = torch.get_num_threads()
    fits = []
    for threads, held in ((1, 2**31), (2, 2**31), (2, 0)):
        monkeypatch.setattr(softmax_regression, "HELD_BYTES", held)
        torch.set_num_threads(threads)
        fits.append(fit(blocks(features, labels), classes=CLASSES, l2=1e-4))
        assert torch.get_num_threads() == threads
    torch.set_num_threads(before)

    first, *others = fits
    assert all(torch.equal(first.weight, each.weight) for each in others)
    assert all(torch.equal(first.bias, each.bias) for each in others)


@pytest.mark.parametrize(
    ("change", "l2"),
    [
        (lambda x: x * 1e5 + 1e4, 1e-3),  # far from zero, and long
        (lambda x: x * torch.logspace(-6, 6, x.shape[1]), 1e-8),  # of all sizes
        (lambda x: torch.cat([x, x], 1), 1e-10),  # the same twice
        (lambda x: x * 0, 1e-6),
        (lambda x: x * 1e30, 1e-4),
        (lambda x: x.half(), 1e6),
    ],
)
def test_unusual_features_have_an_answer_too(change, l2):
    features, labels = problem(300)

    found = fit(blocks(change(features), labels), classes=CLASSES, l2=l2)

    assert found.weight.isfinite().all()
    assert found.gradient <= softmax_regression.TOLERANCE


def test_a_class_that_lost_all_of_its_samples_has_an_answer_too():
    features, labels = problem(300)

    found = fit(blocks(features, labels.clamp_max(1)), classes=CLASSES, l2=1e-6)

    p = (features.double() @ found.weight.T + found.bias).softmax(1)
    assert p[:, 2:].max() < 0.01


def test_separable_samples_need_but_a_penalty():
    features, labels = problem(300)
    separable = torch.cat([features, 10 * torch.nn.functional.one_hot(labels, CLASSES)], 1)

    found = fit(blocks(separable, labels), classes=CLASSES, l2=1e-12)

    assert found.loss < 1e-6


def test_what_cannot_be_fitted_says_what_to_do():
    features, labels = problem(10)
    with pytest.raises(UnlearningError, match="some must be left"):
        fit(lambda: iter(()), classes=CLASSES, l2=1.0)
    with pytest.raises(UnlearningError, match="normalises what enters its head"):
        fit(blocks(features.double() * 1e200, labels), classes=CLASSES, l2=1.0)
