"""Each baseline does what its paper says, on a toy problem."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.quality.methods import METHODS, conv_transpose, delete, msg, salun, scrub, ssd
from benchmarks.quality.methods.given import Given
from benchmarks.quality.methods.training import Descent, divergence, sgd
from tests.benchmarks.toy_problem import (
    CLASSES,
    POISON,
    accuracy,
    mean_loss,
    same,
    scaled,
    statistics,
    wrong_on,
)
from worker.unlearning.network import Network
from worker.unlearning.samples import Samples


def test_do_nothing_does_nothing(given: Given) -> None:
    assert same(METHODS["do nothing"].unlearn(given), given.original.model)


def test_fine_tuning_never_touches_the_forget_set(given: Given) -> None:
    for name in ("fine-tune", "L1-sparse", "CT"):
        METHODS[name].unlearn(replace(given, forget=POISON))


def test_neggrad_plus_raises_the_forget_loss_and_keeps_the_rest(given: Given) -> None:
    after = METHODS["NegGrad+"].unlearn(given, alpha=0.6, lr=0.02, epochs=20)

    assert mean_loss(given, after, given.forget) > 10 * mean_loss(given, None, given.forget)
    assert accuracy(given, after, given.retain) > 0.9


def test_neggrad_plus_keeps_the_statistics_only_when_they_are_frozen(given: Given) -> None:
    frozen, free = (
        METHODS["NegGrad+"].unlearn(given, frozen_statistics=frozen) for frozen in (True, False)
    )

    assert statistics(frozen).equal(statistics(given.original.model))
    assert not statistics(free).equal(statistics(given.original.model))


def test_scrub_alternates_maximising_and_minimising(given: Given) -> None:
    passes: list[str] = []
    forgotten = {image.numpy().tobytes() for image in given.forget.inputs}

    def prepare(inputs: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            mine = [image.numpy().tobytes() in forgotten for image in inputs]
            passes.append({1: "forget", 0: "retain"}[sum(mine) / len(mine)])
        return scaled(inputs)

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
    checkpoints = [wrong_on([]), wrong_on([1, 2]), wrong_on([1, 2, 3, 4, 5])]

    assert scrub.rewound(checkpoints, forget, holdout) is checkpoints[1]


def test_scrub_does_not_rewind_where_a_class_is_removed(given: Given) -> None:
    scrub.unlearn(replace(given, removing=True, holdout=POISON))


def test_bad_teacher_teaches_the_forget_samples_what_a_new_model_says(given: Given) -> None:
    new = given.original.around(given.fresh(given.seed)).outputs(given.forget, 64)[1]
    old = given.original.outputs(given.forget, 64)[1]

    after = METHODS["Bad Teacher"].unlearn(given, lr=1e-2, epochs=20, retain_share=1.0)

    now = given.original.around(after).outputs(given.forget, 64)[1]
    assert divergence(now, new) < divergence(old, new) / 2
    assert accuracy(given, after, given.retain) > 0.9


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
    assert same(ssd.unlearn(given, alpha=1e9), given.original.model)


def test_ssd_with_lambda_zero_erases_exactly_what_alpha_selects(given: Given) -> None:
    mild, erased = (ssd.unlearn(given, alpha=2.0, dampening=d) for d in (1.0, 0.0))

    for before, damped, gone in zip(
        *(model.parameters() for model in (given.original.model, mild, erased)), strict=True
    ):
        selected = damped != before
        assert (damped[selected].abs() < before[selected].abs()).all()
        assert (gone[selected] == 0).all()
        assert gone[~selected].equal(before[~selected])
    assert not same(mild, given.original.model)


def test_ssd_leaves_the_statistics_alone(given: Given) -> None:
    assert statistics(ssd.unlearn(given)).equal(statistics(given.original.model))


def test_delete_never_touches_the_retain_set_nor_the_holdout(given: Given) -> None:
    METHODS["DELETE"].unlearn(replace(given, retain=POISON, holdout=POISON))


def test_delete_masks_the_true_class_and_keeps_the_others_in_proportion() -> None:
    logits = torch.tensor([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0]])
    labels = torch.tensor([0, 1])

    kept = delete.masked(logits, labels).softmax(1)

    expected = torch.stack([logits[0, 1:].softmax(0), logits[1, ::2].softmax(0)])
    assert kept[[0, 1], labels].tolist() == [0, 0]
    assert torch.stack([kept[0, 1:], kept[1, ::2]]).allclose(expected)


def test_delete_makes_the_forget_samples_lose_their_class(given: Given) -> None:
    after = delete.unlearn(given, lr=1e-2, epochs=50, frozen_statistics=True)

    assert accuracy(given, after, given.forget) <= 0.25


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
    assert not same(changed, given.original.model)
