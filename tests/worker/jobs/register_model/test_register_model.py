"""What a registered model gets: its version, statistics and reservoir."""

import hashlib
from io import BytesIO

import numpy as np
import pyarrow as pa
import torch
from PIL import Image
from sqlalchemy import select
from transformers import BertConfig, BertForSequenceClassification, ViTConfig
from transformers import ViTForImageClassification as Vit

from domain.preprocessing import InputKind
from domain.states import JobStatus, RegistrationStatus, Split, VersionStatus
from domain.tables import AuditEvent, Job, ModelVersion
from tests import factories
from tests.worker.jobs.register_model.digit_networks import (
    DIGITS,
    PARTS,
    PREPROCESSING,
    digits_table,
)
from worker.data import decode, reservoir, version_statistics
from worker.networks import architectures, weights
from worker.unlearning.alignment import Moments
from worker.unlearning.network import Network


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
    network = Network(trained, head="7", prepare=decode.preparer(PREPROCESSING, InputKind.PIXELS))
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

    assert table.schema.names == [
        "sample_id", "input", "label", "split", "specimen_input", "specimen_label",
        "specimen_answer",
    ]  # fmt: skip
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


def test_a_sample_the_model_has_forgotten_before_is_not_drawn(digits, named, run, sync_sessions):
    model = named(digits, policy={"reservoir_samples": 5000, "evaluation_samples": 5000})
    by = factories.job(model_id=model.id, finished=True)
    with sync_sessions.begin() as session:
        session.add(by)
        session.flush()
        session.add(factories.tombstone(model, by, "digit-0", key=digits.tombstone_key))
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
        indexed(table, kind="image", input_shape=None),
        weights_uri=str(tmp_path / "vit"),
        architecture={"kind": "transformers"},
        head="classifier",
        preprocessing={
            "resize": [16, 16], "mode": "RGB", "scale": 1 / 255,
            "mean": [0.5] * 3, "std": [0.5] * 3,
        },
        accept_accuracy=True,
    )  # fmt: skip

    bench = run(model)

    version, model = stored_version(bench, model), refreshed(model)
    assert (version.figures["features"], version.figures["classes"]) == (16, 10)
    again = architectures.build(model.architecture, [])
    weights.load(again, bench.store.path(version.weights_sha256))
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
        indexed(table, kind="tokens", input_shape=[64]),
        weights_uri=str(tmp_path / "bert" / "model.safetensors"),
        architecture={"kind": "transformers"},
        head="classifier",
        preprocessing={},
        accept_accuracy=True,
    )

    assert stored_version(run(model), model).figures["features"] == 16
