"""Indexed digits, models to register on them, and the job that does so."""

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_model
from torch import nn

from domain.preprocessing import InputKind
from domain.tables import Model
from tests.worker.jobs.register_model.digit_networks import (
    DIGITS,
    PARTS,
    POLICY,
    PREPROCESSING,
    TOY_MODELS,
    Choosy,
    Idle,
    Twice,
    convolutional,
    digits_table,
)
from worker.data import decode
from worker.jobs.index_dataset import index_dataset
from worker.jobs.register_model import register_model


@pytest.fixture(autouse=True)
def toy_models(module_of) -> None:
    module_of("toy_models", convolutional, Twice, Idle, Choosy)


@pytest.fixture(scope="module")
def trained() -> nn.Module:
    """A small network that has learned the training digits."""
    torch.manual_seed(0)
    network = convolutional()
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01, fused=True)
    mine = PARTS == "train"
    images = decode.preparer(PREPROCESSING, InputKind.PIXELS)(
        torch.from_numpy(DIGITS.images[mine][:, None])
    )
    labels = torch.from_numpy(DIGITS.target[mine])
    for _ in range(30):
        optimizer.zero_grad()
        F.cross_entropy(network(images), labels).backward()
        optimizer.step()
    return network.eval()


@pytest.fixture
def indexed(write, register, bench_for, definition, refreshed):
    """A dataset, indexed; by default the digits."""

    def make(columns=None, **changes):
        path = write(digits_table() if columns is None else columns, row_group_size=400)
        known = {**definition, "input_shape": [1, 8, 8], **changes}
        dataset = register(path, definition=known)
        index_dataset(bench_for(dataset))
        return refreshed(dataset)

    return make


@pytest.fixture
def digits(indexed):
    return indexed()


@pytest.fixture
def named(sync_sessions, tmp_path, trained):
    """A model's row, for the trained network unless keywords say otherwise."""
    weights = tmp_path / "weights.safetensors"
    save_model(trained, str(weights))

    def make(dataset, **columns) -> Model:
        known = {
            "name": "digits",
            "dataset_id": dataset.id,
            "weights_uri": weights.as_uri(),
            "architecture": {
                "kind": "python", "factory": "toy_models:convolutional", "arguments": {},
            },
            "head": "7",
            "preprocessing": PREPROCESSING,
            "policy": POLICY,
        }  # fmt: skip
        with sync_sessions.begin() as session:
            model = Model(**{**known, **columns})
            session.add(model)
        return model

    return make


@pytest.fixture
def run(bench_for):
    def register(model):
        bench = bench_for(model, factories=TOY_MODELS)
        register_model(bench)
        return bench

    return register
