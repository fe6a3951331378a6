"""What was only hidden comes back when a copy is trained further; what was never seen does not."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from worker.unlearning.errors import NotFinite
from worker.unlearning.evaluation import Outputs, membership_auc
from worker.unlearning.fine_tuning import fine_tuned
from worker.unlearning.network import Network
from worker.unlearning.samples import Samples

CLASSES, INPUTS = 4, 20


def drawn(count, generator):
    """Inputs whose labels are chance, so that whoever knows them has seen them."""
    return Samples(
        torch.randn(count, INPUTS, generator=generator),
        torch.randint(CLASSES, (count,), generator=generator),
    )


def memorised(samples, seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(INPUTS, 128), nn.ReLU(), nn.Linear(128, CLASSES))
    optimizer = torch.optim.Adam(model.parameters(), 0.01, fused=True)
    for _ in range(150):
        optimizer.zero_grad()
        F.cross_entropy(model(samples.inputs), samples.labels).backward()
        optimizer.step()
    return Network(model.eval(), head="2", prepare=lambda inputs: inputs)


@pytest.fixture(scope="module")
def sets():
    generator = torch.Generator().manual_seed(0)
    return [drawn(count, generator) for count in (150, 100, 150)]


def auc(network, forget, unseen):
    return membership_auc(*(Outputs.of(network, each, 100) for each in (forget, unseen)))


def tuned(network, retain, **changes):
    how = {"steps": 60, "lr": 0.04, "batch_size": 32, "seed": 1} | changes
    return fine_tuned(network, retain, **how)


def test_a_model_that_only_hides_what_it_knows_moves_and_a_retrained_one_does_not(sets):
    retain, forget, unseen = sets
    both = Samples(*map(torch.cat, zip(*((s.inputs, s.labels) for s in sets[:2]), strict=True)))
    hiding, retrained = memorised(both), memorised(retain)
    with torch.no_grad():
        hiding.model[2].weight.zero_()
        hiding.model[2].bias.zero_()

    moves = [
        (auc(network, forget, unseen), auc(tuned(network, retain), forget, unseen))
        for network in (hiding, retrained)
    ]

    (hidden, found), (before, after) = moves
    assert hidden == pytest.approx(0.5)
    assert found > 0.6
    assert abs(after - before) < 0.04


def test_the_network_itself_stays_as_it_was(sets):
    retain, *_ = sets
    network = memorised(retain)
    network.model[0].requires_grad_(False)
    before = {name: value.clone() for name, value in network.model.state_dict().items()}

    copy = tuned(network, retain, steps=3)

    assert all(
        torch.equal(value, before[name]) for name, value in network.model.state_dict().items()
    )
    assert not any(parameter.requires_grad for parameter in network.model[0].parameters())
    assert not torch.equal(copy.model[0].weight, before["0.weight"])
    assert not copy.model.training


def test_it_takes_as_many_steps_as_were_asked_for(sets):
    taken = []

    tuned(memorised(sets[0]), sets[0], steps=13, on_step=lambda: taken.append(1))

    assert len(taken) == 13


def test_a_copy_that_diverges_is_told(sets):
    with pytest.raises(NotFinite):
        tuned(memorised(sets[0]), sets[0], lr=torch.inf)
