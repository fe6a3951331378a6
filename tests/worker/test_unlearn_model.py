"""The job that makes a model forget, on the kinds of models and inputs that can be registered."""

import dataclasses
import sys
from datetime import timedelta
from io import BytesIO
from types import ModuleType

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from safetensors.torch import save_model
from sklearn.datasets import load_digits
from sqlalchemy import func, select, update
from torch import nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    ViTConfig,
    ViTForImageClassification,
)

from service.errors import JobError, LeaseLost
from service.states import JobStatus, Objective, RequestStatus, VersionStatus
from service.tables import (
    AlignmentScore,
    AuditEvent,
    Evaluation,
    Job,
    Model,
    ModelVersion,
    Tombstone,
)
from tests import factories
from worker import architectures, planner, protocol, reservoir
from worker.index_dataset import index_dataset
from worker.register_model import register_model
from worker.unlearn_model import unlearn_model
from worker.workbench import Workbench

COUNT = 300
DIGITS = load_digits()
PIXELS, LABELS = DIGITS.data[:COUNT], DIGITS.target[:COUNT]
PARTS = np.array(["train", "train", "train", "valid", "test"])[np.arange(COUNT) % 5]
NAMED = [f"digit-{n}" for n in range(COUNT) if PARTS[n] == "train"][:20]


def perceptron() -> nn.Module:
    """An MLP without any batch normalisation, for flat arrays."""
    return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


def flat_floats(folder):
    torch.manual_seed(0)
    save_model(perceptron(), str(folder / "mlp.safetensors"))
    return {
        "inputs": pa.array(PIXELS.astype(np.float32).tolist(), pa.list_(pa.float32())),
        "input_shape": [64],
        "weights_uri": str(folder / "mlp.safetensors"),
        "architecture": {"kind": "python", "factory": "toy_models:perceptron"},
        "head": "2",
        "preprocessing": {"scale": 1 / 16},
    }


def encoded_images(folder):
    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        image_size=16, patch_size=8, num_channels=3, num_labels=10,
    )  # fmt: skip
    ViTForImageClassification(config).save_pretrained(folder / "vit")

    def png(pixels):
        file = BytesIO()
        Image.fromarray((pixels.reshape(8, 8) * 15).astype(np.uint8)).save(file, "PNG")
        return file.getvalue()

    return {
        "inputs": pa.array([png(pixels) for pixels in PIXELS]),
        "input_shape": None,
        "weights_uri": str(folder / "vit"),
        "architecture": {"kind": "transformers"},
        "head": "classifier",
        "preprocessing": {"resize": [16, 16], "mode": "RGB", "mean": [0.5] * 3, "std": [0.5] * 3},
    }


def token_ids(folder):
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=17, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, num_labels=10, max_position_embeddings=64,
    )  # fmt: skip
    BertForSequenceClassification(config).save_pretrained(folder / "bert")
    return {
        "inputs": pa.array(PIXELS.astype(np.int32).tolist(), pa.list_(pa.int32())),
        "input_shape": [64],
        "weights_uri": str(folder / "bert"),
        "architecture": {"kind": "transformers"},
        "head": "classifier",
        "preprocessing": {},
    }


def token_ids_for_a_decoder(folder):
    """GPT-2 puts its head on every token; the logits at the last one that is not padding count."""
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=17, n_embd=16, n_layer=1, n_head=2, n_positions=64, num_labels=10,
        pad_token_id=0,
    )  # fmt: skip
    GPT2ForSequenceClassification(config).save_pretrained(folder / "gpt2")
    return token_ids(folder) | {"weights_uri": str(folder / "gpt2"), "head": "score"}


@pytest.fixture(autouse=True)
def toy_models(monkeypatch):
    module = ModuleType("toy_models")
    module.perceptron = perceptron
    monkeypatch.setitem(sys.modules, "toy_models", module)


@pytest.fixture
def registered(write, register, bench_for, definition, sync_sessions, refreshed, tmp_path):
    """A model of this kind, registered by the jobs that do so."""

    def make(kind) -> Model:
        known = kind(tmp_path)
        columns = {
            "id": [f"digit-{n}" for n in range(COUNT)],
            "pixels": known.pop("inputs"),
            "digit": LABELS,
            "part": PARTS,
        }
        shape = {"input_shape": known.pop("input_shape")}
        dataset = register(write(columns), definition=definition | shape)
        index_dataset(bench_for(dataset))
        policy = {"reservoir_samples": 100, "evaluation_samples": 100}
        with sync_sessions.begin() as session:
            model = Model(name="net", dataset_id=dataset.id, policy=policy, **known)
            session.add(model)
        register_model(bench_for(model, factories=["toy_models:perceptron"]))
        return refreshed(model)

    return make


@pytest.fixture
def claim(sync_sessions, workbench):
    """A workbench for the model's open job, whoever had it before."""

    def take(model) -> Workbench:
        over = func.now() - timedelta(seconds=1)
        with sync_sessions.begin() as session:
            session.execute(
                update(Job).where(Job.lease_until.is_not(None)).values(lease_until=over)
            )
            planner.free_expired(session, max_losses=3)
            queued = select(Job.id).filter_by(model_id=model.id, status=JobStatus.QUEUED)
            job_id = session.scalars(queued).one()
            held = protocol.claim(session, job_id, worker="w", lease=timedelta(minutes=5))
        return workbench(held, factories=["toy_models:perceptron"])

    return take


@pytest.fixture
def ask(sync_sessions, claim):
    """Plan a request to this model, and claim its job."""

    def make(model, *ids, **changes) -> Workbench:
        with sync_sessions.begin() as session:
            dataset = factories.dataset(id=model.dataset_id)  # for its id alone
            request = factories.request(dataset, samples=len(ids), **changes)
            session.add(request)
            session.flush()
            session.add(factories.target(request, model))
            session.add_all(factories.request_samples(request, *ids))
            session.flush()
            planner.plan(session)
        return claim(model)

    return make


@pytest.mark.parametrize("kind", [flat_floats, encoded_images, token_ids, token_ids_for_a_decoder])
def test_every_kind_of_model_and_input_can_forget(registered, ask, sync_sessions, kind):
    model = registered(kind)
    bench = ask(model, *NAMED)

    unlearn_model(bench)

    with sync_sessions() as session:
        job = session.get_one(Job, bench.claim.job_id)
        assert job.status is JobStatus.COMPLETED
        assert job.environment["device"] == "cpu"
        cycles = session.scalars(select(AlignmentScore.cycle).filter_by(job_id=job.id)).all()
        assert sorted(cycles) == list(range(1, job.config["cycles"] + 1))
        moments = session.scalars(select(Evaluation.moment).filter_by(job_id=job.id)).all()
        assert sorted(moments) == ["after", "before"]
        champion = session.scalars(
            select(ModelVersion).filter_by(model_id=model.id, status=VersionStatus.CHAMPION)
        ).one()
        assert champion.number == 2
        assert session.scalar(select(func.count(Tombstone.sample_id))) == len(NAMED)
    network = architectures.build(model.architecture, ["toy_models:perceptron"])
    architectures.load_weights(network, bench.store.path(champion.weights_sha256))


def test_a_second_attempt_gives_the_same_weights_and_one_version(
    registered, ask, claim, sync_sessions
):
    class Overtaken(Workbench):
        """Loses the job to another worker just before its end."""

        def report(self, phase, progress):
            super().report(phase, progress)
            if phase == "evaluating the new version":
                later.append(claim(model))

    later = []
    model = registered(flat_floats)
    bench = ask(model, *NAMED)
    fields = {f.name: getattr(bench, f.name) for f in dataclasses.fields(bench)}

    with pytest.raises(LeaseLost):
        unlearn_model(Overtaken(**fields))
    files = sorted(path.name for path in bench.store.root.rglob("objects/*/*"))
    unlearn_model(*later)

    assert later[0].claim.attempt == 2
    assert sorted(path.name for path in bench.store.root.rglob("objects/*/*")) == files
    with sync_sessions() as session:
        numbers = session.scalars(select(ModelVersion.number).filter_by(model_id=model.id)).all()
        assert sorted(numbers) == [1, 2]
        attempts = set(session.scalars(select(AlignmentScore.attempt)))
        assert attempts == {2}


def test_requests_in_sequence_each_make_a_version(registered, ask, sync_sessions):
    model = registered(flat_floats)

    for start in range(0, 20, 5):
        unlearn_model(ask(model, *NAMED[start : start + 5]))

    with sync_sessions() as session:
        versions = session.execute(
            select(ModelVersion.number, ModelVersion.status)
            .filter_by(model_id=model.id)
            .order_by(ModelVersion.number)
        ).all()
        assert [number for number, _ in versions] == [1, 2, 3, 4, 5]
        assert [status for _, status in versions] == [VersionStatus.SUPERSEDED] * 4 + [
            VersionStatus.CHAMPION
        ]


def test_samples_forgotten_meanwhile_leave_nothing_to_do(registered, ask, sync_sessions):
    model = registered(flat_floats)
    unlearn_model(ask(model, *NAMED[:5]))

    unlearn_model(ask(model, *NAMED[:5]))

    with sync_sessions() as session:
        assert session.scalar(select(func.count(ModelVersion.id))) == 2
        assert session.scalar(select(func.count(Tombstone.sample_id))) == 5
        done = select(AuditEvent.id).filter_by(event=f"request.{RequestStatus.COMPLETED}")
        assert len(session.scalars(done).all()) == 2


def test_a_class_is_removed_whole_or_not_at_all(registered, ask):
    model = registered(flat_floats)
    sevens = [f"digit-{n}" for n in range(COUNT) if PARTS[n] == "train" and LABELS[n] == 7]

    with pytest.raises(JobError, match="every training sample of the classes"):
        unlearn_model(ask(model, *sevens[1:], objective=Objective.REMOVE_CLASS))


def test_a_whole_class_can_be_removed(registered, ask, sync_sessions):
    model = registered(flat_floats)
    sevens = [f"digit-{n}" for n in range(COUNT) if PARTS[n] == "train" and LABELS[n] == 7]

    unlearn_model(ask(model, *sevens, objective=Objective.REMOVE_CLASS))

    with sync_sessions() as session:
        assert session.scalars(select(Job.status).order_by(Job.id.desc())).first() == "completed"


def test_a_holdout_sample_leaves_the_reservoir_and_the_old_file_goes(
    registered, ask, sync_sessions
):
    model = registered(flat_floats)
    with sync_sessions() as session:
        before = session.scalars(select(ModelVersion.reservoir_sha256)).one()
    held_out = next(f"digit-{n}" for n in range(COUNT) if PARTS[n] == "valid")
    bench = ask(model, held_out)

    unlearn_model(bench)

    with sync_sessions() as session:
        version = session.scalars(select(ModelVersion)).one()
    assert version.number == 1
    assert (
        held_out
        not in reservoir.read(bench.store, version.reservoir_sha256)["sample_id"].to_pylist()
    )
    assert list(bench.store.root.rglob(before)) == []


def test_forgetting_everything_is_refused_with_advice(registered, ask):
    model = registered(flat_floats)
    everything = [f"digit-{n}" for n in range(COUNT) if PARTS[n] == "train"]

    with pytest.raises(JobError, match="Train a new model without them"):
        unlearn_model(ask(model, *everything))
