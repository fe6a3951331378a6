"""What enters the head is kept sample by sample: no bit of it depends on who else is there."""

import numpy as np
import pytest
import torch
from torch import nn

from domain.errors import JobError
from worker.data import head_features
from worker.data.head_features import Features
from worker.store.artifacts import Store
from worker.unlearning.alignment import Moments
from worker.unlearning.network import Network
from worker.unlearning.samples import Samples
from worker.unlearning.softmax_regression import BLOCK

COUNT = 2 * BLOCK + 100


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


@pytest.fixture(scope="module")
def rows():
    generator = np.random.default_rng(0)
    made = np.zeros(COUNT, head_features._row(3))
    made["digest"] = generator.integers(0, 256, (COUNT, 32), dtype=np.uint8)
    made["label"] = np.arange(COUNT) % 5
    made["features"] = generator.normal(size=(COUNT, 3))
    return made


def test_what_leaves_in_two_steps_leaves_the_same_as_in_one(store, rows):
    whole = Features(rows, np.arange(COUNT), 0).store(store)
    gone = [row.tobytes() for row in rows["digest"][[0, 700, BLOCK, COUNT - 1]]]

    half = head_features.read(store, whole, without=gone[:2])
    rest = head_features.read(store, half.store(store), without=gone[2:])
    at_once = head_features.read(store, whole, without=gone)

    assert (half.left_out, rest.left_out, at_once.left_out) == (2, 2, 4)
    assert rest.store(store) == at_once.store(store)
    for mine, theirs in zip(rest.blocks(), at_once.blocks(), strict=True):
        assert torch.equal(mine[0], theirs[0])
        assert torch.equal(mine[1], theirs[1])
    sizes = [len(labels) for _, labels in at_once.blocks()]
    assert sizes == [BLOCK, BLOCK, 96]
    stays = np.delete(rows["features"], [0, 700, BLOCK, COUNT - 1], axis=0)
    assert torch.allclose(at_once.moments().mean, Moments.of(torch.from_numpy(stays)).mean)


class Centred(nn.Module):
    """Takes the mean of the batch out of it: what one sample is depends on the others."""

    def forward(self, inputs):
        return inputs - inputs.mean(0)


def network(*before):
    torch.manual_seed(0)
    model = nn.Sequential(*before, nn.Linear(64, 48), nn.GELU(), nn.Linear(48, 3)).eval()
    return Network(model, head=str(len(model) - 1), prepare=lambda x: x)


def test_features_are_the_same_bits_whoever_else_stays():
    samples = Samples(torch.randn(300, 64), torch.zeros(300, dtype=torch.int64))
    stays = torch.tensor([n for n in range(300) if n not in (0, 17, 130)])

    every = head_features.features_of(network(), samples)
    fewer = head_features.features_of(network(), samples.select(stays))

    assert torch.equal(every[stays], fewer)


def test_a_network_that_mixes_samples_is_refused():
    samples = Samples(torch.randn(8, 64), torch.zeros(8, dtype=torch.int64))

    head_features.require_apart(network(), samples)
    with pytest.raises(JobError, match="depend on the samples that it is shown together"):
        head_features.require_apart(network(Centred()), samples)
