"""A network that has memorised the toy problem; trained once per run."""

import pytest
import torch
import torch.nn.functional as F

from benchmarks.quality.methods.given import Given
from tests.benchmarks.toy_problem import draw, new_model, right, scaled
from worker.unlearning.network import Network
from worker.unlearning.samples import Samples


@pytest.fixture(scope="session")
def trained() -> tuple[Network, Samples, Samples]:
    """A network that knows its training set by heart, that set, and a hold-out."""
    train, holdout = draw(200, seed=0), draw(80, seed=1)
    model = new_model(0).train()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    generator = torch.Generator().manual_seed(0)
    for _ in range(60):
        for inputs, labels in train.batches(50, generator):
            optimizer.zero_grad()
            F.cross_entropy(model(scaled(inputs)), labels).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    network = Network(model.eval(), head="9", prepare=scaled)
    assert right(network, train) > 0.98
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
        fresh=new_model,
        removing=False,
        seed=3,
    )
