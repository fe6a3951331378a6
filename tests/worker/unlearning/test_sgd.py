import copy
import subprocess
import sys

import pytest
import torch
from torch import nn

from worker.unlearning.sgd import SGD


@pytest.mark.parametrize("momentum", [0, 0.9])
def test_its_steps_are_those_of_torch(momentum):
    mine = nn.ModuleList([nn.Linear(5, 3), nn.BatchNorm1d(3), nn.Linear(3, 2), nn.Linear(2, 2)])
    torchs = copy.deepcopy(mine)
    frozen = copy.deepcopy(mine[3].state_dict())
    nesterov = momentum > 0
    pairs = [
        (mine, SGD(mine.parameters(), 0.1, momentum=momentum)),
        (
            torchs,
            torch.optim.SGD(torchs.parameters(), 0.1, momentum=momentum, nesterov=nesterov),
        ),
    ]

    for seed in range(5):
        inputs = torch.randn(8, 5, generator=torch.Generator().manual_seed(seed))
        for model, optimizer in pairs:
            optimizer.zero_grad()
            reached = model[:3] if seed != 2 else model[:2]  # a parameter may miss a step
            nn.Sequential(*reached)(inputs).square().sum().backward()
            optimizer.step()
        pairs[0][1].lr = pairs[1][1].param_groups[0]["lr"] = 0.1 / (seed + 2)

    assert all(map(torch.equal, mine.state_dict().values(), torchs.state_dict().values()))
    assert all(map(torch.equal, mine[3].state_dict().values(), frozen.values()))


def test_a_job_starts_without_the_compiler():
    code = """
import sys
import torch
import worker.child
from worker.unlearning.sgd import SGD

weight = torch.nn.Parameter(torch.ones(1))
weight.square().backward()
SGD([weight], 0.1).step()
assert weight.item() < 1
sys.exit("torch._dynamo" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
