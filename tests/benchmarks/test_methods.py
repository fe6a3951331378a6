"""The baselines do what their papers say, on a toy problem, within their share of retraining."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.quality.methods import METHODS, conv_transpose, delete, msg, salun, scrub, ssd
from benchmarks.quality.methods.given import Given
from benchmarks.quality.methods.training import Descent, divergence, sgd
from worker.unlearning.network import Network
from worker.unlearning.samples import Samples

CLASSES, RETRAINING_EPOCHS = 4, 18
TRAINED = METHODS.keys() - {"do nothing", "SSD"}


# For all


def test_every_method_is_searched_over_eight_settings_that_it_knows() -> None:
    for name, method in METHODS.items():
        assert len(method.SEARCH) == (1 if name == "do nothing" else 8)
        assert method.SEARCH[0] == method.SETTINGS
        assert all(settings.keys() == method.SETTINGS.keys() for settings in method.SEARCH)
        assert len({str(settings) for settings in method.SEARCH}) == len(method.SEARCH)


@pytest.mark.parametrize("name", METHODS)
def test_the_same_seed_gives_the_same_weights_and_another_seed_others(
    name: str, given: Given
) -> None:
    once, again = (METHODS[name].unlearn(given) for _ in range(2))
    other = METHODS[name].unlearn(replace(given, seed=given.seed + 1))

    assert _same(once, again)
    assert not once.training
    assert all(parameter.grad is None for parameter in once.parameters())
    if name in TRAINED:
        assert not _same(once, other)


@pytest.mark.parametrize("name", METHODS)
def test_the_original_is_left_as_it_is_and_the_result_is_another_model(
    name: str, given: Given
) -> None:
    before = given.original.copy().model

    after = METHODS[name].unlearn(given)

    assert _same(given.original.model, before)
    assert after is not given.original.model
    if name in TRAINED - {"SalUn"}:
        weights = zip(before.parameters(), after.parameters(), strict=True)
        assert not any(old.equal(new) for old, new in weights)


@pytest.mark.parametrize("name", METHODS)
def test_every_setting_ends_finite_and_within_two_fifths_of_retraining(
    name: str, given: Given
) -> None:
    for settings in METHODS[name].SEARCH:
        counted, cost = _counting(given)

        after = METHODS[name].unlearn(counted, **settings)

        assert all(weight.isfinite().all() for weight in after.state_dict().values())
        assert cost() <= 0.4 * RETRAINING_EPOCHS * len(given.retain), settings


@pytest.mark.parametrize("name", METHODS)
def test_a_class_can_be_removed(name: str, given: Given) -> None:
    everything = _joined(given.retain, given.forget)
    lost = everything.labels == 0
    whole = replace(
        given, forget=everything.select(lost), retain=everything.select(~lost), removing=True
    )

    after = METHODS[name].unlearn(whole)

    assert all(weight.isfinite().all() for weight in after.state_dict().values())


@pytest.mark.parametrize("name", METHODS)
def test_one_sample_can_be_forgotten(name: str, given: Given) -> None:
    one = replace(given, forget=given.forget.select(torch.tensor([0])))

    after = METHODS[name].unlearn(one)

    assert all(weight.isfinite().all() for weight in after.state_dict().values())


def test_a_gradient_that_explodes_is_cut() -> None:
    model = nn.Linear(3, 1)
    before = model.weight.detach().clone()
    descent = Descent(sgd(model, 0.1, weight_decay=0.0), steps=1, schedule=lambda done: 1.0)

    descent.step(1e30 * model(torch.ones(1, 3)).sum())

    assert (model.weight - before).norm() <= 0.1 * 10 * 1.001


def test_the_divergence_is_zero_from_the_teacher_and_grows_with_the_temperature_squared() -> None:
    logits = torch.randn(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    assert divergence(logits, logits).item() == pytest.approx(0)
    warm = divergence(4 * logits, torch.zeros_like(logits), 4.0)
    assert warm.item() == pytest.approx(16 * divergence(logits, torch.zeros_like(logits)).item())


# For one each


def test_do_nothing_does_nothing(given: Given) -> None:
    assert _same(METHODS["do nothing"].unlearn(given), given.original.model)


def test_fine_tuning_never_touches_the_forget_set(given: Given) -> None:
    for name in ("fine-tune", "L1-sparse", "CT"):
        METHODS[name].unlearn(replace(given, forget=_POISON))


def test_neggrad_plus_raises_the_forget_loss_and_keeps_the_rest(given: Given) -> None:
    after = METHODS["NegGrad+"].unlearn(given, alpha=0.6, lr=0.02, epochs=20)

    assert _loss(given, after, given.forget) > 10 * _loss(given, None, given.forget)
    assert _accuracy(given, after, given.retain) > 0.9


def test_neggrad_plus_keeps_the_statistics_only_when_they_are_frozen(given: Given) -> None:
    frozen, free = (
        METHODS["NegGrad+"].unlearn(given, frozen_statistics=frozen) for frozen in (True, False)
    )

    assert _statistics(frozen).equal(_statistics(given.original.model))
    assert not _statistics(free).equal(_statistics(given.original.model))


def test_scrub_alternates_maximising_and_minimising(given: Given) -> None:
    passes: list[str] = []
    forgotten = {image.numpy().tobytes() for image in given.forget.inputs}

    def prepare(inputs: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            mine = [image.numpy().tobytes() in forgotten for image in inputs]
            passes.append({1: "forget", 0: "retain"}[sum(mine) / len(mine)])
        return _scaled(inputs)

    watched = Network(given.original.model, head=given.original.head, prepare=prepare)
    scrub.unlearn(replace(given, original=watched), epochs=3, max_steps=2)

    cycle = ["forget", "retain", "retain"]  # batches
    assert passes == cycle + cycle + cycle[1:]


def test_scrub_drives_away_from_the_teacher_and_back_to_it(given: Given) -> None:
    network = given.original.copy()
    network.model.train()
    teacher = given.original.outputs(given.forget, 64)[1]
    generator = torch.Generator().manual_seed(0)
    descent = Descent(sgd(network.model, 0.05), 90)

    for _ in range(30):
        scrub.maximise(network, given.forget, teacher, descent, 1.0, generator)
    away = divergence(network.outputs(given.forget, 64)[1], teacher)
    for _ in range(60):
        scrub.minimise(network, given.forget, teacher, descent, (1.0, 1.0), 1.0, generator)
    back = divergence(network.outputs(given.forget, 64)[1], teacher)

    assert away > 0.5
    assert back < away / 3


def test_scrub_rewinds_to_the_checkpoint_nearest_to_the_last_ones_holdout_error() -> None:
    labels = torch.zeros(4, dtype=torch.int64)
    forget = Samples(torch.tensor([[1], [2], [3], [4]]), labels)
    holdout = Samples(
        torch.tensor([[5], [6], [1], [1]]), torch.tensor([0, 0, 1, 1])
    )  # class 1 does not count
    checkpoints = [_wrong_on([]), _wrong_on([1, 2]), _wrong_on([1, 2, 3, 4, 5])]

    assert scrub.rewound(checkpoints, forget, holdout) is checkpoints[1]


def test_scrub_does_not_rewind_where_a_class_is_removed(given: Given) -> None:
    scrub.unlearn(replace(given, removing=True, holdout=_POISON))


def test_bad_teacher_teaches_the_forget_samples_what_a_new_model_says(given: Given) -> None:
    new = given.original.around(given.fresh(given.seed)).outputs(given.forget, 64)[1]
    old = given.original.outputs(given.forget, 64)[1]

    after = METHODS["Bad Teacher"].unlearn(given, lr=1e-2, epochs=20, retain_share=1.0)

    now = given.original.around(after).outputs(given.forget, 64)[1]
    assert divergence(now, new) < divergence(old, new) / 2
    assert _accuracy(given, after, given.retain) > 0.9


def test_salun_moves_salient_weights_and_no_other_bit(given: Given) -> None:
    masks = dict(salun.salient(given.original, given.forget, 0.3))
    before = dict(given.original.model.named_parameters())

    after = dict(salun.unlearn(given, lr=0.1, salient_share=0.3).named_parameters())

    share = sum(int(mask.sum()) for mask in masks.values()) / sum(m.numel() for m in masks.values())
    assert share == pytest.approx(0.3, abs=0.01)
    for name, mask in masks.items():
        assert after[name][~mask].equal(before[name][~mask])
    assert any(not after[name][mask].equal(before[name][mask]) for name, mask in masks.items())


def test_the_salient_weights_have_the_largest_forget_gradients(given: Given) -> None:
    network = given.original.copy()
    network.model.requires_grad_(True)
    loss = F.cross_entropy(network(given.forget.inputs)[1], given.forget.labels)
    loss.backward()  # type: ignore[no-untyped-call]
    sizes = {name: each.grad.abs() for name, each in network.model.named_parameters()}

    masks = salun.salient(given.original, given.forget, 0.5)

    inside = torch.cat([sizes[name][mask] for name, mask in masks])
    outside = torch.cat([sizes[name][~mask] for name, mask in masks])
    assert inside.min() >= outside.max() * (1 - 1e-3)


def test_random_labels_are_never_right() -> None:
    labels = torch.arange(400) % CLASSES

    wrong = salun.wrong_labels(labels, CLASSES, torch.Generator().manual_seed(0))

    assert (wrong != labels).all()
    assert set(wrong.tolist()) == set(range(CLASSES))


def test_a_stronger_l1_penalty_leaves_smaller_weights(given: Given) -> None:
    plain, sparse = (
        sum(
            each.abs().sum() for each in METHODS["L1-sparse"].unlearn(given, penalty=p).parameters()
        )
        for p in (0.0, 1e-2)
    )

    assert sparse < plain


def test_ssd_changes_nothing_where_nothing_is_selected(given: Given) -> None:
    assert _same(ssd.unlearn(given, alpha=1e9), given.original.model)


def test_ssd_with_lambda_zero_erases_exactly_what_alpha_selects(given: Given) -> None:
    mild, erased = (ssd.unlearn(given, alpha=2.0, dampening=d) for d in (1.0, 0.0))

    for before, damped, gone in zip(
        *(model.parameters() for model in (given.original.model, mild, erased)), strict=True
    ):
        selected = damped != before
        assert (damped[selected].abs() < before[selected].abs()).all()
        assert (gone[selected] == 0).all()
        assert gone[~selected].equal(before[~selected])
    assert not _same(mild, given.original.model)


def test_ssd_leaves_the_statistics_alone(given: Given) -> None:
    assert _statistics(ssd.unlearn(given)).equal(_statistics(given.original.model))


def test_delete_never_touches_the_retain_set_nor_the_holdout(given: Given) -> None:
    METHODS["DELETE"].unlearn(replace(given, retain=_POISON, holdout=_POISON))


def test_delete_masks_the_true_class_and_keeps_the_others_in_proportion() -> None:
    logits = torch.tensor([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0]])
    labels = torch.tensor([0, 1])

    kept = delete.masked(logits, labels).softmax(1)

    expected = torch.stack([logits[0, 1:].softmax(0), logits[1, ::2].softmax(0)])
    assert kept[[0, 1], labels].tolist() == [0, 0]
    assert torch.stack([kept[0, 1:], kept[1, ::2]]).allclose(expected)


def test_delete_makes_the_forget_samples_lose_their_class(given: Given) -> None:
    after = delete.unlearn(given, lr=1e-2, epochs=50, frozen_statistics=True)

    assert _accuracy(given, after, given.forget) <= 0.25


def test_msg_renews_the_smallest_gradients_of_each_convolution(given: Given) -> None:
    network = given.original.copy()
    network.model.requires_grad_(True)
    generator = torch.Generator().manual_seed(0)

    masks = msg.renewed(network, given, 0.3, generator)

    assert len(masks) == sum(isinstance(m, nn.Conv2d) for m in network.model.modules())
    for weight, mask in masks.items():
        assert weight.grad is not None
        assert int(mask.sum()) == round(0.3 * mask.numel())
        assert weight.grad[mask].abs().max() <= weight.grad[~mask].abs().min()


def test_a_scaled_gradient_moves_its_weight_by_so_much_less() -> None:
    model = nn.Linear(2, 1, bias=False)
    before = model.weight.detach().clone()
    scales = {model.weight: torch.tensor([[1.0, 0.1]])}
    descent = Descent(sgd(model, 0.1, weight_decay=0.0), 1, scales=scales)

    descent.step(model(torch.ones(1, 2)).sum())

    moved = (model.weight - before).detach().abs()[0]
    assert moved[1].item() == pytest.approx(0.1 * moved[0].item(), rel=1e-4)


def test_ct_transposes_every_kernel_and_nothing_else(given: Given) -> None:
    changed = given.original.copy().model
    conv_transpose.transpose(changed)

    for name, before in given.original.model.named_parameters():
        after = changed.get_parameter(name)
        assert after.equal(before.transpose(2, 3) if before.ndim == 4 else before)
    assert not _same(changed, given.original.model)


# The toy problem


def _model(seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(8, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, CLASSES),
        )  # fmt: skip


def _scaled(inputs: Tensor) -> Tensor:
    return inputs.float() / 64 - 2


def _draw(count: int, seed: int) -> Samples:
    """Noisy uint8 images (N, 3, 8, 8) whose class shows in one bright quarter."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % CLASSES
    images = torch.randn(count, 3, 8, 8, generator=generator) * 50 + 100
    for label in range(CLASSES):
        row, column = 4 * (label // 2), 4 * (label % 2)
        images[labels == label, label % 3, row : row + 4, column : column + 4] += 40
    return Samples(images.clamp(0, 255).to(torch.uint8), labels)


@pytest.fixture(scope="module")
def trained() -> tuple[Network, Samples, Samples]:
    """A network that knows its training set by heart, that set, and a hold-out."""
    train, holdout = _draw(200, seed=0), _draw(80, seed=1)
    model = _model(0).train()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    generator = torch.Generator().manual_seed(0)
    for _ in range(60):
        for inputs, labels in train.batches(50, generator):
            optimizer.zero_grad()
            F.cross_entropy(model(_scaled(inputs)), labels).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    network = Network(model.eval(), head="9", prepare=_scaled)
    assert _right(network, train) > 0.98
    return network, train, holdout


@pytest.fixture
def given(trained: tuple[Network, Samples, Samples]) -> Given:
    network, train, holdout = trained
    forgotten = torch.zeros(len(train), dtype=torch.bool)
    forgotten[:20] = True
    return Given(
        original=network,
        forget=train.select(forgotten),
        retain=train.select(~forgotten),
        holdout=holdout,
        fresh=_model,
        removing=False,
        seed=3,
    )


class _Poison(Samples):
    """Samples that no one may look at."""

    def __len__(self) -> int:
        raise AssertionError("looked at")

    def __getattribute__(self, name: str) -> Any:
        raise AssertionError(f"looked at {name}")


_POISON = object.__new__(_Poison)


def _counting(given: Given) -> tuple[Given, Callable[[], float]]:
    """The same problem, and what was spent on it: samples trained on, a look being a third."""
    spent = [0.0]

    def prepare(inputs: Tensor) -> Tensor:
        spent[0] += len(inputs) * (1 if torch.is_grad_enabled() else 1 / 3)
        return _scaled(inputs)

    network = Network(given.original.model, head=given.original.head, prepare=prepare)
    return replace(given, original=network), lambda: spent[0]


def _wrong_on(inputs: list[int]) -> Network:
    """A network that answers 1 to these inputs and 0 to the others."""

    class Answer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Identity()
            self.weight = nn.Parameter(torch.zeros(()))

        def forward(self, values: Tensor) -> Tensor:
            wrong = torch.isin(values[:, 0], torch.tensor(inputs, dtype=values.dtype))
            return F.one_hot(wrong.long(), 2) + 0 * self.head(values).sum()

    return Network(Answer(), head="head", prepare=lambda batch: batch)


def _joined(first: Samples, second: Samples) -> Samples:
    inputs = torch.cat([first.inputs, second.inputs])
    return Samples(inputs, torch.cat([first.labels, second.labels]))


def _same(first: nn.Module, second: nn.Module) -> bool:
    ours, theirs = first.state_dict(), second.state_dict()
    return all(ours[name].equal(theirs[name]) for name in ours)


def _statistics(model: nn.Module) -> Tensor:
    return torch.cat([each.flatten().double() for each in model.buffers()])


def _right(network: Network, samples: Samples) -> float:
    return (network.outputs(samples, 64)[1].argmax(1) == samples.labels).double().mean().item()


def _accuracy(given: Given, model: nn.Module, samples: Samples) -> float:
    return _right(given.original.around(model), samples)


def _loss(given: Given, model: nn.Module | None, samples: Samples) -> float:
    network = given.original if model is None else given.original.around(model)
    return F.cross_entropy(network.outputs(samples, 64)[1], samples.labels).item()
