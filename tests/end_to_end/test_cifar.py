"""The main job on real photographs: CIFAR-10, 5,000 training images, through the API.

The images are not part of the project; without them, this test says so and is skipped.
"""

import pytest
from safetensors.torch import save_model

from benchmarks import cifar_models
from benchmarks.cifar_models import Recipe
from devstack import local
from tests.end_to_end.conftest import DONE, ids_of

IMAGES = local.REPOSITORY.parent / "shared" / "data"
SPLITS = {"train_samples": 5000, "holdout_samples": 2500, "test_samples": 2500}
"""Half of what the benchmark has, or less: most of this test is the training."""

FORGOTTEN = 500
EPOCHS = 10
"""Enough to memorise most training images; the benchmark trains longer."""

pytestmark = pytest.mark.skipif(
    not (IMAGES / "cifar10_train.parquet").exists(),
    reason="CIFAR-10 as Parquet is not in ../shared/data",
)


@pytest.fixture(scope="module")
def folder(home):
    folder = home.state / "data" / "cifar"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def dataset(client, folder):
    """One directory of Parquet files with the JPEG bytes."""
    cifar_models.write_dataset(IMAGES, folder, **SPLITS)
    row = client.register_dataset("cifar", folder)
    assert row["status"] == "ready", row
    assert row["report"]["samples"] == {"train": 5_000, "holdout": 2_500, "test": 2_500}
    return row


@pytest.fixture(scope="module")
def model(client, dataset, folder):
    cache = local.REPOSITORY / ".cache" / "cifar-5000-2500"
    data = cifar_models.prepare_data(IMAGES, cache, **SPLITS)
    trained, _ = cifar_models.trained_model(data.train, Recipe(epochs=EPOCHS), cache)
    weights = folder / "cnn.safetensors"
    save_model(trained, str(weights))
    row = client.register_model(
        "cifar-cnn",
        weights,
        dataset="cifar",
        architecture={"kind": "python", "factory": "benchmarks.cifar_models:cnn"},
        policy={  # what one round gives is looked at here
            "escalation": [],
            "reservoir_samples": 2500,
            "evaluation_samples": 2500,
        },
        preprocessing={"mean": [0.4914, 0.4822, 0.4465], "std": [0.2470, 0.2435, 0.2616]},
    )
    assert row["status"] == "ready", row
    return "cifar-cnn"


def test_photographs_are_forgotten(client, model, dataset):
    ids = ids_of(client, dataset, "split = 'train'")[:FORGOTTEN]  # the rows lie in random order

    where = client.request(model, ids)
    request = client.settled(where, timeout_s=400)

    assert request["status"] in DONE, request
    job = client.job_of(where)
    before, after = job["before"], job["after"]
    unseen = after["figures"]["holdout_accuracy_same_classes"]
    assert before["forget_accuracy"] - before["holdout_accuracy"] > 0.15
    assert abs(after["forget_accuracy"] - unseen) < 0.13
    assert after["retain_accuracy"] > before["retain_accuracy"] - 0.04
    assert after["figures"]["test_accuracy"] > before["figures"]["test_accuracy"] - 0.05
    assert after["da_gap_low"] < 0.01
    assert after["da_gap_high"] > -0.01
    assert abs(after["figures"]["membership_auc"] - 0.5) < 0.06
