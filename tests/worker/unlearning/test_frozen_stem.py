import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from worker.unlearning import frozen_stem
from worker.unlearning.frozen_stem import StemOutputs, divided
from worker.unlearning.network import Network
from worker.unlearning.samples import Samples


class Residual(nn.Module):
    """A convolution and a way around it, as torchvision writes them."""

    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, inputs):
        F.relu(inputs)  # for nothing
        made = self.norm(self.conv(inputs))
        made += inputs
        return F.relu(made)


class Straying(nn.Module):
    """What it does depends on what it sees: it cannot be traced."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.head = nn.Linear(4, 2)

    def forward(self, inputs):
        features = self.conv(inputs).mean((2, 3))
        return self.head(-features if features.sum() > 1e9 else features)


def sequential():
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, bias=False), nn.MaxPool2d(2), nn.BatchNorm2d(4), nn.ReLU(),
        nn.Conv2d(4, 64, 3), nn.BatchNorm2d(64), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(64, 2),
    )  # fmt: skip


def residual():
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), Residual(4), Residual(4),
        nn.Conv2d(4, 128, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 2),
    )  # fmt: skip


def network(model, head, **others):
    made = Network(model, head=head, prepare=lambda images: images.float() / 255, **others)
    made.freeze_leading(0.1)
    made.train()
    return made


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randint(0, 256, (12, 3, 12, 12), dtype=torch.uint8, generator=generator)
    return Samples(inputs, torch.arange(12) % 2)


@pytest.mark.parametrize(("build", "head"), [(sequential, "8"), (residual, "8")])
def test_both_parts_do_what_the_whole_does_and_share_its_weights(build, head, images):
    whole = network(build(), head)
    again = whole.copy()
    parts = divided(whole, images)

    def descended(network, inputs):
        optimizer = torch.optim.SGD(network.model.parameters(), lr=0.1)
        for _ in range(3):
            _, logits = network(inputs)
            optimizer.zero_grad()
            F.cross_entropy(logits, images.labels).backward()
            optimizer.step()

    descended(parts.rest, parts.through(images, 5).inputs)
    descended(again, images.inputs)

    mine, theirs = whole.model.state_dict(), again.model.state_dict()
    assert all(torch.allclose(mine[name], theirs[name], atol=1e-5) for name in theirs)
    frozen = [p for p in whole.model.parameters() if not p.requires_grad]
    rest = {id(p) for p in parts.rest.model.parameters()}
    assert parts.rest is not whole
    assert frozen
    assert not rest & set(map(id, frozen))


def test_what_is_frozen_is_seen_once_for_each_sample(images):
    whole, seen = network(sequential(), "8"), []
    parts = divided(whole, images)
    whole.model[0].register_forward_hook(lambda *_: seen.append(1))

    made = parts.through(images, 12)
    for _ in range(3):
        parts.rest(made.inputs)

    assert len(seen) == 1
    assert made.inputs.shape == (12, 4, 5, 5)
    assert not made.inputs.requires_grad


def test_a_model_that_cannot_be_cut_stays_whole(images, monkeypatch):
    pooled = network(sequential(), "8", pool=lambda features, _: features)
    moving = network(sequential(), "8")
    moving.freeze_leading(0)
    straying = network(Straying(), "head")
    straying.model.conv.requires_grad_(False)
    hooked = network(sequential(), "8")
    hooked.model.register_forward_pre_hook(lambda _, args: (args[0] * 3 + 1,))
    training = network(sequential(), "8")
    training.model.register_forward_hook(lambda m, _, out: out * 0 if m.training else out)
    inside = network(residual(), "8")
    inside.model[2].register_forward_hook(lambda m, _, out: out * 0 if m.training else out)
    large = network(sequential(), "8")

    for whole in (pooled, moving, straying, hooked, training, inside):
        assert divided(whole, images).rest is whole
    assert divided(large, images).rest is not large
    monkeypatch.setattr(frozen_stem, "KEPT_BYTES", 12 * 4 * 5 * 5 * 4 - 1)
    assert divided(large, images).rest is large
    assert divided(large, images).through(images, 5).inputs.equal(images.inputs)


@pytest.mark.parametrize(
    "varying",
    [
        nn.Dropout(0.5),
        nn.BatchNorm2d(4, affine=False),
        nn.BatchNorm2d(4, track_running_stats=False),
        nn.PReLU(4),
    ],
    ids=["draws", "running statistics that move", "statistics of each batch", "trained"],
)
def test_the_stem_ends_before_what_varies(varying, images):
    whole = network(sequential(), "8")
    upto = divided(whole, images).through(images, 12).inputs
    model = copy.deepcopy(whole.model)
    model.insert(4, varying)

    parts = divided(network(model, "9"), images)

    assert parts.through(images, 12).inputs.equal(upto)
    assert varying in parts.rest.model.modules()


@pytest.fixture
def counted():
    """A stem that doubles what it sees, and how many samples it saw."""
    seen = []

    def double(inputs):
        seen.append(len(inputs))
        return 2.0 * inputs

    return double, seen


def test_a_sample_goes_through_the_stem_once(counted):
    double, seen = counted
    samples = Samples(torch.arange(6), torch.arange(6) % 2)
    stem_outputs = StemOutputs(double, samples)

    asked = [torch.tensor(chosen) for chosen in ([3, 1], [1, 0, 3], [5, 5], [0, 5, 1])]
    made = [stem_outputs.inputs(chosen) for chosen in asked]

    assert all(one.equal(2.0 * chosen) for one, chosen in zip(made, asked, strict=True))
    assert seen == [2, 1, 2]


def test_what_takes_too_much_room_is_made_anew(counted, monkeypatch):
    double, seen = counted
    monkeypatch.setattr(frozen_stem, "KEPT_BYTES", 6 * 4 - 1)
    stem_outputs = StemOutputs(double, Samples(torch.arange(6), torch.arange(6) % 2))

    for _ in range(2):
        assert stem_outputs.inputs(torch.tensor([4, 2])).equal(torch.tensor([8.0, 4.0]))
    assert seen == [2, 2]
