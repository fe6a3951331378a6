"""The method on networks other than a CNN: a vision transformer, a text transformer, a plain MLP.

None of them has batch normalisation. Some of the labels are wrong, in the training set as in the
hold-out, so that the networks have something to memorise.
"""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

from worker.networks import architectures
from worker.unlearning.alignment import Moments
from worker.unlearning.config import default_config
from worker.unlearning.evaluation import Evaluation, Observed, evaluate
from worker.unlearning.network import Network
from worker.unlearning.samples import Samples
from worker.unlearning.unlearn import unlearn

CLASSES, TRAIN, HOLDOUT, WRONG, BATCH = 5, 240, 400, 0.15, 500
WORDS, LENGTH, SENTENCES = 40, 10, 700


@dataclass(frozen=True)
class Kind:
    """A network as it is before training, how it is trained, and the data it is for."""

    build: Callable[[], nn.Module]
    head: str
    prepare: Callable[[Tensor], Tensor]
    draw: Callable[[], Samples]
    epochs: int
    wrong_left: tuple[float, float] = (0.6, 0.2)
    """Of the wrong labels it memorised, at most; without and with predictions."""

    wrong_auc: float = 0.15
    """By how much less their losses must tell that they were learned."""


def images() -> Samples:
    """uint8 handwritten digits (N, 1, 8, 8)."""
    bunch = load_digits(n_class=CLASSES)
    return Samples(
        torch.from_numpy(bunch.images).to(torch.uint8)[:, None], torch.from_numpy(bunch.target)
    )


def sentences() -> Samples:
    """Token ids (N, LENGTH), padded with 0; every class has favourite words."""
    generator = torch.Generator().manual_seed(5)
    labels = torch.arange(SENTENCES) % CLASSES
    anything = torch.randint(1, WORDS, (SENTENCES, LENGTH), generator=generator)
    own = WORDS // CLASSES
    favourite = 1 + labels[:, None] * own + anything % (own - 1)
    chosen = torch.rand(SENTENCES, LENGTH, generator=generator) < 0.7
    lengths = torch.randint(6, LENGTH + 1, (SENTENCES, 1), generator=generator)
    words = torch.where(chosen, favourite, anything)
    return Samples(words * (torch.arange(LENGTH) < lengths), labels)


def centred(inputs: Tensor) -> Tensor:
    return inputs.float() / 8 - 1


def flat(inputs: Tensor) -> Tensor:
    return centred(inputs).flatten(1)


def vit() -> nn.Module:
    config = {
        "model_type": "vit", "hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2,
        "intermediate_size": 128, "image_size": 8, "patch_size": 4, "num_channels": 1,
        "num_labels": CLASSES,
    }  # fmt: skip
    return architectures.build({"kind": "transformers", "config": config}, [])


def bert() -> nn.Module:
    config = {
        "model_type": "bert", "vocab_size": WORDS, "hidden_size": 64, "num_hidden_layers": 1,
        "num_attention_heads": 2, "intermediate_size": 128, "max_position_embeddings": LENGTH,
        "num_labels": CLASSES, "pad_token_id": 0,
    }  # fmt: skip
    return architectures.build({"kind": "transformers", "config": config}, [])


def mlp() -> nn.Module:
    return nn.Sequential(
        nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 32), nn.ReLU(), nn.Linear(32, CLASSES)
    )


KINDS = [
    Kind(vit, "classifier", centred, images, epochs=120),
    Kind(bert, "classifier", torch.Tensor.long, sentences, epochs=40),
    Kind(mlp, "4", flat, images, epochs=80, wrong_left=(0.8, 0.4), wrong_auc=0.1),
]


def trained(kind: Kind, samples: Samples, seed: int) -> Network:
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = kind.build().train()
        optimizer = torch.optim.Adam(model.parameters(), 3e-3, fused=True)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, kind.epochs)
        for _ in range(kind.epochs):
            for inputs, labels in samples.batches(40, generator):
                optimizer.zero_grad()
                F.cross_entropy(model(kind.prepare(inputs)), labels).backward()
                optimizer.step()
            schedule.step()
    return Network(model.eval(), head=kind.head, prepare=kind.prepare)


class Bench:
    """A network that has memorised wrong labels, and one that never saw what is forgotten."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        drawn = kind.draw()
        generator = torch.Generator().manual_seed(0)
        order = torch.randperm(len(drawn), generator=generator)[: TRAIN + HOLDOUT]
        wrong = torch.rand(len(order), generator=generator) < WRONG
        shifts = torch.randint(1, CLASSES, order.shape, generator=generator)
        labels = drawn.labels[order]
        data = Samples(drawn.inputs[order], torch.where(wrong, (labels + shifts) % CLASSES, labels))
        self.train = data.select(torch.arange(TRAIN))
        self.holdout = data.select(torch.arange(TRAIN, len(data)))
        self.wrong = wrong[:TRAIN]
        self.random = torch.rand(TRAIN, generator=generator) < 0.25
        known = ~self.random & ~self.wrong
        self.original = trained(kind, self.train, seed=0)
        self.other = trained(kind, self.train.select(known), seed=1)

    def predictions(self, forgotten: Tensor) -> Tensor:
        """(F, C) probabilities, from the network that never saw them."""
        _, logits = self.other.outputs(self.train.select(forgotten), BATCH)
        return logits.softmax(1)

    def unlearned(
        self,
        forgotten: Tensor,
        predictions: Tensor | None = None,
        removing: bool = False,
    ) -> Network:
        forget, retain = self.train.select(forgotten), self.train.select(~forgotten)
        features, logits = self.original.outputs(retain, BATCH)
        model = unlearn(
            self.original,
            forget=forget,
            retain=retain,
            retain_logits=logits,
            holdout=self.holdout,
            moments=Moments.of(features),
            class_counts=retain.labels.bincount(minlength=CLASSES),
            config=default_config(
                removing=removing, forget_count=len(forget), reservoir_count=len(retain)
            ),
            on_cycle=lambda *_: None,
            predictions=predictions,
        )
        return self.original.around(model)

    def measured(self, network: Network, forgotten: Tensor) -> Evaluation:
        """Says so when an output is not finite."""
        retain = self.train.select(~forgotten)
        observed = Observed.of(
            network,
            forget=self.train.select(forgotten),
            retain=retain,
            holdout=self.holdout,
            test=None,
        )
        return evaluate(observed, class_counts=retain.labels.bincount(minlength=CLASSES))


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: kind.build.__name__)
def bench(request: pytest.FixtureRequest) -> Bench:
    return Bench(request.param)


@pytest.mark.parametrize("foretold", [False, True])
def test_forgets_samples_like_those_it_never_saw(bench, foretold):
    predictions = bench.predictions(bench.random) if foretold else None

    before = bench.measured(bench.original, bench.random)
    after = bench.measured(bench.unlearned(bench.random, predictions), bench.random)

    assert before.membership_auc > 0.6
    assert abs(after.membership_auc - 0.5) < 0.85 * (before.membership_auc - 0.5)
    assert after.retain_accuracy > 0.85
    assert after.holdout_accuracy > before.holdout_accuracy - 0.06


@pytest.mark.parametrize("foretold", [False, True])
def test_forgets_the_wrong_labels_it_memorised(bench, foretold):
    left = bench.kind.wrong_left[foretold]
    predictions = bench.predictions(bench.wrong) if foretold else None

    before = bench.measured(bench.original, bench.wrong)
    after = bench.measured(bench.unlearned(bench.wrong, predictions), bench.wrong)

    assert before.forget_accuracy > 0.75
    assert after.forget_accuracy < left * before.forget_accuracy
    assert after.membership_auc < before.membership_auc - bench.kind.wrong_auc
    assert after.retain_accuracy > 0.85
    assert after.holdout_accuracy > before.holdout_accuracy


@pytest.mark.parametrize(("foretold", "left"), [(False, 1), (True, 0)])
def test_forgets_a_single_sample(bench, foretold, left):
    _, logits = bench.original.outputs(bench.train, BATCH)
    memorised = bench.wrong & (logits.argmax(1) == bench.train.labels)
    one = torch.arange(TRAIN) == memorised.nonzero()[0]
    predictions = bench.predictions(one) if foretold else None

    before = bench.measured(bench.original, one)
    after = bench.measured(bench.unlearned(one, predictions), one)

    assert before.forget_accuracy == 1
    assert after.membership_auc < before.membership_auc
    assert after.forget_accuracy <= left
    assert after.retain_accuracy > 0.85


def test_removes_two_classes_whole(bench):
    two = torch.isin(bench.train.labels, torch.tensor([1, 3]))

    before = bench.measured(bench.original, two)
    after = bench.measured(bench.unlearned(two, removing=True), two)

    assert after.forget_accuracy < 0.2
    assert after.holdout_accuracy_same_classes < 0.2
    assert after.retain_accuracy > 0.85
    assert after.holdout_accuracy > before.holdout_accuracy - 0.05
