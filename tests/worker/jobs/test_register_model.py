import hashlib
import sys
from io import BytesIO
from types import ModuleType

import numpy as np
import pyarrow as pa
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file, save_model
from sklearn.datasets import load_digits
from sqlalchemy import select, text, update
from torch import nn
from transformers import BertConfig, BertForSequenceClassification, ViTConfig
from transformers import ViTForImageClassification as Vit

from domain.errors import JobError, LeaseLost
from domain.states import JobStatus, RegistrationStatus, Split, VersionStatus
from domain.tables import AuditEvent, Job, Model, ModelVersion, Sample
from tests import factories
from worker.data import decode, reservoir, version_statistics
from worker.engine import lease
from worker.jobs.index_dataset import index_dataset
from worker.jobs.register_model import register_model
from worker.networks import architectures
from worker.unlearning.alignment import Moments
from worker.unlearning.network import Network

DIGITS = load_digits()
PARTS = np.array(["train", "train", "train", "valid", "test"])[np.arange(1797) % 5]
PREPROCESSING = {"resize": None, "mode": "L", "scale": 1 / 16, "mean": [0.5], "std": [0.5]}
POLICY = {"reservoir_samples": 200, "evaluation_samples": 150}


def convolutional(classes: int = 10) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(128, 16), nn.ReLU(), nn.Linear(16, classes),
    )  # fmt: skip


class Twice(nn.Module):
    """Enters its head twice."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(64, 10), nn.Linear(10, 10)

    def forward(self, x):
        return self.head(self.head(self.body(x.flatten(1))))


class Idle(Twice):
    """Never enters its head."""

    def forward(self, x):
        return self.body(x.flatten(1))


class Choosy(nn.Module):
    """Wants other inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(63, 10)

    def forward(self, x):
        return self.head(x.flatten(1))


TOY_MODELS = [f"toy_models:{name}" for name in ("convolutional", "Twice", "Idle", "Choosy")]


@pytest.fixture(autouse=True)
def toy_models(monkeypatch) -> None:
    module = ModuleType("toy_models")
    for factory in (convolutional, Twice, Idle, Choosy):
        setattr(module, factory.__name__, factory)
    monkeypatch.setitem(sys.modules, "toy_models", module)


@pytest.fixture(scope="module")
def trained() -> nn.Module:
    """A small network that has learned the training digits."""
    torch.manual_seed(0)
    network = convolutional()
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    mine = PARTS == "train"
    images = decode.preparer(PREPROCESSING)(torch.from_numpy(DIGITS.images[mine][:, None]))
    labels = torch.from_numpy(DIGITS.target[mine])
    for _ in range(30):
        optimizer.zero_grad()
        F.cross_entropy(network(images), labels).backward()
        optimizer.step()
    return network.eval()


def digits_table(count: int = 1797) -> pa.Table:
    pixels = DIGITS.data[:count].astype(np.uint8).tolist()
    return pa.table({
        "id": [f"digit-{n}" for n in range(count)],
        "pixels": pa.array(pixels, pa.list_(pa.uint8())),
        "digit": DIGITS.target[:count],
        "part": PARTS[:count],
    })  # fmt: skip


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


def stored_version(bench, model) -> ModelVersion:
    for attempt in bench.transaction():
        with attempt as session:
            version = session.scalars(select(ModelVersion).filter_by(model_id=model.id)).one()
    return version


def test_a_sound_model_becomes_version_one_and_champion(digits, named, run, refreshed, trained):
    model = named(digits)

    bench = run(model)

    model, version = refreshed(model), stored_version(bench, model)
    assert (model.status, model.failure) == (RegistrationStatus.READY, None)
    assert (version.number, version.status) == (1, VersionStatus.CHAMPION)
    assert version.job_id == bench.claim.job_id
    figures = version.figures
    assert figures["retain_accuracy"] > 0.9
    assert figures["holdout_accuracy"] > 0.8
    assert figures["test_accuracy"] > 0.8
    assert (figures["features"], figures["classes"]) == (16, 10)
    assert figures["parameters"] == sum(p.numel() for p in trained.parameters())
    assert figures["samples"] == {"train": 1079, "holdout": 359, "test": 359}
    assert figures["reservoir"] == {"train": 200, "holdout": 150, "test": 150}
    for attempt in bench.transaction():
        with attempt as session:
            assert session.get_one(Job, version.job_id).status is JobStatus.COMPLETED
            events = session.scalars(select(AuditEvent.event).order_by(AuditEvent.id)).all()
    assert events[-3:] == ["model.checked", "version.created", "job.completed"]


def test_the_weights_are_kept_under_their_hash(digits, named, run, tmp_path):
    model = named(digits)
    bench = run(model)

    original = (tmp_path / "weights.safetensors").read_bytes()
    digest = stored_version(bench, model).weights_sha256
    assert digest == hashlib.sha256(original).hexdigest()
    assert bench.store.path(digest).read_bytes() == original


def test_the_statistics_are_those_of_all_training_samples(digits, named, run, trained):
    model = named(digits)
    bench = run(model)
    known = version_statistics.read(bench.store, stored_version(bench, model).statistics_sha256)

    mine = PARTS == "train"
    network = Network(trained, head="7", prepare=decode.preparer(PREPROCESSING))
    with torch.no_grad():
        features, _ = network(torch.from_numpy(DIGITS.images[mine][:, None].astype(np.uint8)))
    expected = Moments.of(features)
    assert known.moments.count == 1079
    torch.testing.assert_close(known.moments.mean, expected.mean)
    torch.testing.assert_close(known.moments.second, expected.second)
    assert known.class_counts.tolist() == np.bincount(DIGITS.target[mine]).tolist()
    assert known.holdout_alignment.shape == (10,)
    assert ((known.holdout_alignment > 0) & (known.holdout_alignment < 1)).all()
    assert (known.holdout_losses.diff() >= 0).all()
    assert (known.holdout_margins.diff() >= 0).all()


def test_the_reservoir_holds_equally_many_training_samples_of_each_class(digits, named, run):
    model = named(digits)
    bench = run(model)
    table = reservoir.read(bench.store, stored_version(bench, model).reservoir_sha256)

    assert table.schema.names == ["sample_id", "input", "label", "split"]
    retain = reservoir.samples(table, Split.TRAIN, PREPROCESSING, digits.definition)
    assert retain.labels.bincount().tolist() == [20] * 10
    position = int(table["sample_id"][0].as_py().removeprefix("digit-"))
    assert table["input"][0].as_py() == DIGITS.data[position].tolist()
    holdout = reservoir.samples(table, Split.HOLDOUT, PREPROCESSING, digits.definition)
    assert holdout.inputs.shape == (150, 1, 8, 8)
    assert holdout.inputs.dtype == torch.uint8


def test_a_forgotten_sample_leaves_the_reservoir_whatever_its_split(digits, named, run):
    model = named(digits)
    bench = run(model)
    table = reservoir.read(bench.store, stored_version(bench, model).reservoir_sha256)
    forgotten = {table["sample_id"][0].as_py(), table["sample_id"][-1].as_py(), "unknown"}

    left = reservoir.without(table, forgotten)

    assert left.num_rows == 498
    assert not forgotten & set(left["sample_id"].to_pylist())
    assert reservoir.read(bench.store, reservoir.write(bench.store, left)).equals(left)


def test_rare_classes_give_all_they_have(indexed, named, run):
    table = digits_table(400)
    rare = np.flatnonzero((DIGITS.target[:400] != 9) | (np.arange(400) < 50))
    dataset = indexed(table.take(rare))
    model = named(dataset, policy={"reservoir_samples": 100, "evaluation_samples": 10})
    bench = run(model)

    digest = stored_version(bench, model).reservoir_sha256
    retain = reservoir.samples(
        reservoir.read(bench.store, digest), Split.TRAIN, PREPROCESSING, dataset.definition
    )
    counts = retain.labels.bincount()
    mine = (PARTS[rare] == "train") & (DIGITS.target[rare] == 9)
    assert counts[9] == mine.sum()
    assert len(retain) == 100
    assert counts[:9].max() - counts[:9].min() <= 1


def test_rows_left_out_when_indexing_do_not_count(indexed, named, run):
    table = digits_table(500)
    labels = table["digit"].to_numpy().copy()
    labels[[0, 1]] = -1
    ids = ["nul\0" if n == 5 else f"digit-{n}" for n in range(500)]
    ids[10] = ids[11]
    table = table.set_column(2, "digit", pa.array(labels)).set_column(0, "id", pa.array(ids))
    dataset = indexed(table, bad_rows="skip")
    model = named(dataset)
    bench = run(model)

    known = version_statistics.read(bench.store, stored_version(bench, model).statistics_sha256)
    assert known.moments.count == 300 - 5


def test_a_sample_the_model_has_forgotten_before_is_not_drawn(digits, named, run, bench_for):
    model = named(digits, policy={"reservoir_samples": 5000, "evaluation_samples": 5000})
    other = bench_for(digits)
    for attempt in other.transaction():
        with attempt as session:
            job = session.get_one(Job, other.claim.job_id)
            session.add(factories.tombstone(model, job, "digit-0", key=digits.tombstone_key))
    bench = run(model)

    table = reservoir.read(bench.store, stored_version(bench, model).reservoir_sha256)
    assert "digit-0" not in table["sample_id"].to_pylist()
    known = version_statistics.read(bench.store, stored_version(bench, model).statistics_sha256)
    assert known.moments.count == 1078
    assert table.num_rows == 1796


def test_without_test_samples_there_is_no_test_accuracy(indexed, named, run, definition):
    table = digits_table(300)
    parts = pa.array(np.where(PARTS[:300] == "test", "train", PARTS[:300]))
    splits = {**definition["splits"], "test": None}
    dataset = indexed(table.set_column(3, "part", parts), splits=splits)
    model = named(dataset)
    bench = run(model)

    assert stored_version(bench, model).figures["test_accuracy"] is None


def png(pixels: np.ndarray) -> bytes:
    file = BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def test_a_vision_transformer_on_encoded_images(indexed, named, run, refreshed, tmp_path):
    pictures = [png(pixels) for pixels in (DIGITS.images[:200] * 15).astype(np.uint8)]
    table = digits_table(200).set_column(1, "pixels", pa.array(pictures))
    vit = Vit(
        ViTConfig(
            hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
            image_size=16, patch_size=8, num_channels=3, num_labels=10,
        )
    )  # fmt: skip
    vit.save_pretrained(tmp_path / "vit")
    model = named(
        indexed(table, input_shape=None),
        weights_uri=str(tmp_path / "vit"),
        architecture={"kind": "transformers"},
        head="classifier",
        preprocessing={
            "resize": [16, 16], "mode": "RGB", "scale": 1 / 255,
            "mean": [0.5] * 3, "std": [0.5] * 3,
        },
    )  # fmt: skip

    bench = run(model)

    version, model = stored_version(bench, model), refreshed(model)
    assert (version.figures["features"], version.figures["classes"]) == (16, 10)
    again = architectures.build(model.architecture, [])
    architectures.load_weights(again, bench.store.path(version.weights_sha256))
    images = torch.rand(2, 3, 16, 16)
    assert torch.equal(again(images), vit.eval()(images).logits)


def test_a_text_transformer_on_token_ids(indexed, named, run, tmp_path):
    tokens = DIGITS.data[:200].astype(np.int32).tolist()
    table = digits_table(200).set_column(1, "pixels", pa.array(tokens, pa.list_(pa.int32())))
    BertForSequenceClassification(
        BertConfig(
            vocab_size=17, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
            intermediate_size=16, num_labels=10, max_position_embeddings=64,
        )
    ).save_pretrained(tmp_path / "bert")  # fmt: skip
    model = named(
        indexed(table, input_shape=[64]),
        weights_uri=str(tmp_path / "bert" / "model.safetensors"),
        architecture={"kind": "transformers"},
        head="classifier",
    )

    assert stored_version(run(model), model).figures["features"] == 16


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"head": "fc"}, "no module 'fc' to be its head; its linear modules are 5, 7"),
        ({"head": ""}, "no module '' to be its head"),
        ({"head": "0"}, "'0' takes"),
        ({"weights_uri": "/etc/passwd"}, "outside the allowed directories"),
        ({"weights_uri": "https://example.org/weights"}, "locations are not supported"),
        (
            {"preprocessing": {**PREPROCESSING, "mean": [0.1, 0.2, 0.3]}},
            "names 3 channels in mean or std, the inputs have 1",
        ),
    ],
)
def test_a_model_that_is_not_as_registered_is_refused(digits, named, run, columns, message):
    model = named(digits, **columns)

    with pytest.raises(JobError, match=message):
        run(model)


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("Twice", "enters its head 'head' 2 times in one forward pass"),
        ("Idle", "never calls 'head'"),
        ("Choosy", "The network raised RuntimeError: mat1 and mat2 shapes"),
    ],
)
def test_a_network_that_cannot_be_used_is_refused(digits, named, run, tmp_path, factory, message):
    network = getattr(sys.modules["toy_models"], factory)()
    save_model(network, str(tmp_path / "odd.safetensors"))
    model = named(
        digits,
        weights_uri=str(tmp_path / "odd.safetensors"),
        architecture={"kind": "python", "factory": f"toy_models:{factory}", "arguments": {}},
        head="head",
    )

    with pytest.raises(JobError, match=message):
        run(model)


def test_fewer_classes_than_labels_are_refused(digits, named, run, tmp_path):
    save_model(convolutional(9), str(tmp_path / "nine.safetensors"))
    model = named(
        digits,
        weights_uri=str(tmp_path / "nine.safetensors"),
        architecture={
            "kind": "python", "factory": "toy_models:convolutional", "arguments": {"classes": 9},
        },
    )  # fmt: skip

    with pytest.raises(JobError, match="tells 9 classes apart, but the dataset has the label 9"):
        run(model)


def test_a_network_that_overflows_is_refused(digits, named, run, tmp_path, trained):
    weights = {name: tensor.clone() for name, tensor in trained.state_dict().items()}
    weights["7.weight"] *= 1e38
    save_file(weights, tmp_path / "huge.safetensors")
    model = named(digits, weights_uri=str(tmp_path / "huge.safetensors"))

    with pytest.raises(JobError, match="NaN or infinite values on the dataset's samples"):
        run(model)


def test_a_pickle_never_enters_the_store(digits, named, bench_for, tmp_path, trained):
    torch.save(trained.state_dict(), tmp_path / "pickle.safetensors")
    bench = bench_for(named(digits, weights_uri=str(tmp_path / "pickle.safetensors")))

    with pytest.raises(JobError, match="Only safetensors weights are accepted"):
        register_model(bench)

    assert not bench.store.root.exists()


def changed(table: pa.Table, what: str) -> pa.Table:
    """The digits with one thing different, though indexed as they were."""
    reordered = np.arange(len(table))
    reordered[[1500, 1501]] = [1501, 1500]
    relabelled, moved = table["digit"].to_numpy().copy(), PARTS.copy()
    relabelled[1500], moved[1500] = (relabelled[1500] + 1) % 10, "valid"
    return {
        "order": table.take(reordered),
        "label": table.set_column(2, "digit", pa.array(relabelled)),
        "split": table.set_column(3, "part", pa.array(moved)),
        "fewer": table.slice(0, 1700),
        "other": table.set_column(0, "id", pa.array([f"d{n}" for n in range(len(table))])),
    }[what]


@pytest.mark.parametrize("what", ["order", "label", "split", "fewer", "other"])
def test_a_dataset_that_changed_since_it_was_indexed_is_refused(digits, named, run, write, what):
    write(changed(digits_table(), what))

    with pytest.raises(JobError, match="The dataset changed since it was indexed"):
        run(named(digits))


def test_a_sample_that_is_gone_from_the_index_is_missed(digits, named, run, sync_sessions):
    with sync_sessions.begin() as session:
        session.execute(
            update(Sample)
            .where(Sample.dataset_id == digits.id, Sample.sample_id == "digit-7")
            .values(sample_id="gone")
        )

    with pytest.raises(JobError, match="The dataset changed since it was indexed"):
        run(named(digits, policy={"reservoir_samples": 10, "evaluation_samples": 10}))


def test_a_worker_that_lost_the_job_stores_no_version(digits, named, run, monkeypatch):
    model = named(digits)
    report = lease.report

    def lost_at_the_end(session, held, *, phase, progress):
        report(session, held, phase=phase, progress=progress)
        if phase.startswith("measuring"):
            session.execute(text("UPDATE jobs SET attempt = attempt + 1"))

    monkeypatch.setattr(lease, "report", lost_at_the_end)
    with pytest.raises(LeaseLost):
        run(model)
