import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from domain.errors import JobError
from worker.networks import recipes
from worker.networks.recipes import TrainingData
from worker.unlearning.samples import Samples

CPU = torch.device("cpu")


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Dropout(0.1), nn.Linear(64, 3))


def normalised() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3))


def slow(model, data, *, seed):
    """A recipe that knows nothing of batches."""
    optimizer = torch.optim.Adam(model.parameters(), 0.02, fused=True)
    for _ in range(5):
        for inputs, labels in DataLoader(data, batch_size=32):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs), labels).backward()
            optimizer.step()
    return model


def broken(model, data, *, seed):
    raise RuntimeError("no GPU left")


def forgetful(model, data, *, seed):
    model.train()


@pytest.fixture(autouse=True)
def modules(module_of, monkeypatch) -> None:
    for name, functions in {
        "toy_nets": (mlp, normalised),
        "toy_recipes": (slow, broken, forgetful),
    }.items():
        for function in functions:
            monkeypatch.setattr(function, "__module__", name)
        module_of(name, *functions, torch.mean)


@pytest.fixture
def samples() -> Samples:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(3, (150,), generator=generator)
    centres = torch.tensor([[200, 40, 40, 40], [40, 200, 40, 40], [40, 40, 200, 40]])
    noise = torch.randint(-30, 30, (150, 4), generator=generator)
    return Samples((centres[labels] + noise).to(torch.uint8), labels)


@pytest.fixture
def data(samples) -> TrainingData:
    return TrainingData(samples, lambda inputs: inputs.float() / 255)


def trained(data, *, recipe=recipes.DEFAULT, factory="mlp", allowed=("toy_recipes:*",), seed=0):
    architecture = {"kind": "python", "factory": f"toy_nets:{factory}"}
    return recipes.fresh(architecture, ["toy_nets:*"], recipe, allowed, data, device=CPU, seed=seed)


def accuracy(model, data) -> float:
    inputs, labels = data.batch(torch.arange(len(data)))
    with torch.no_grad():
        return (model(inputs).argmax(1) == labels).float().mean().item()


def test_data_gives_pairs_and_batches(data, samples):
    assert len(data) == 150
    inputs, label = data[7]
    assert torch.equal(inputs, samples.inputs[7] / 255)
    assert isinstance(label, int)
    assert label == samples.labels[7]
    batch, labels = data.batch(torch.tensor([7, 3]))
    assert torch.equal(batch[0], inputs)
    assert labels.tolist() == samples.labels[[7, 3]].tolist()
    assert len(list(data)) == 150


@pytest.mark.parametrize("factory", ["mlp", "normalised"])
def test_the_default_recipe_learns(data, factory):
    model = trained(data, factory=factory)

    assert accuracy(model, data) > 0.98
    assert not model.training


def test_the_seed_decides_the_weights(data):
    first, again, other = (trained(data, seed=seed) for seed in (1, 1, 2))

    weights = [model[0].weight for model in (first, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_the_callers_random_numbers_are_left_alone(data):
    before = torch.get_rng_state()

    trained(data)

    assert torch.equal(torch.get_rng_state(), before)


def test_a_users_recipe_trains(data):
    assert accuracy(trained(data, recipe="toy_recipes:slow"), data) > 0.9


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ("toy_recipes:broken", r"recipe 'toy_recipes:broken' raised RuntimeError: no GPU left"),
        ("toy_recipes:forgetful", r"recipe 'toy_recipes:forgetful' returned a NoneType"),
        ("toy_recipes:missing", r"recipe 'toy_recipes:missing' raised AttributeError"),
        ("nowhere:train", r"'nowhere:train' is not on the allow-list \(LETHE_RECIPES\)"),
        ("toy_recipes:mean", r"'toy_recipes:mean' is only imported there"),
    ],
)
def test_a_recipe_that_cannot_be_used_is_named(data, recipe, message):
    with pytest.raises(JobError, match=message):
        trained(data, recipe=recipe)
