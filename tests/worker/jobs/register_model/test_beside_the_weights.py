"""Networks saved in each way that users save them: Lethe measures their accuracy, or refuses.

The true accuracy is computed here, with the network as it was trained and the pictures as it saw
them. What Lethe measures at registration must be equal to it within 0.01.
"""

import json
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file
from sqlalchemy import select
from torch import Tensor, nn
from transformers import BertConfig, BertForSequenceClassification, ViTConfig
from transformers import ViTForImageClassification as Vit

from domain.errors import JobError
from domain.states import JobKind, Split
from domain.tables import Job, ModelVersion, Sample
from tests.worker.jobs.register_model.digit_networks import (
    DIGITS,
    NAMES,
    PARTS,
    POLICY,
    digits_table,
)
from worker.jobs import estimate
from worker.jobs.train_references import train_references
from worker.jobs.unlearn import inputs

COUNT = 400
ORDER = [3, 1, 4, 0, 5, 9, 2, 6, 8, 7]
"""Output n of the permuted network is the digit ORDER[n]."""

PROCESSOR = {
    "image_processor_type": "ViTImageProcessor", "do_resize": True, "do_rescale": True,
    "do_normalize": True, "size": {"height": 16, "width": 16}, "resample": 2,
    "rescale_factor": 1 / 255, "image_mean": [0.2, 0.3, 0.4], "image_std": [0.3, 0.2, 0.4],
}  # fmt: skip
PICTURES = (DIGITS.images[:COUNT] * 15).astype(np.uint8).repeat(2, 1).repeat(2, 2)
TRUE = torch.from_numpy(DIGITS.target[:COUNT])
MINE = torch.from_numpy(PARTS[:COUNT] == "train")


def png(pixels: np.ndarray) -> bytes:
    file = BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def as_seen() -> Tensor:
    """The pictures as the vision transformer was trained on them."""
    colours = torch.from_numpy(PICTURES)[:, None].expand(-1, 3, -1, -1) / 255
    mean, std = (torch.tensor(PROCESSOR[key]) for key in ("image_mean", "image_std"))
    return (colours - mean.view(3, 1, 1)) / std.view(3, 1, 1)


def trained_on(network: nn.Module, seen: Tensor, steps: int) -> nn.Module:
    optimizer = torch.optim.Adam(network.parameters(), lr=0.005, fused=True)
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(network(seen[MINE]).logits, TRUE[MINE]).backward()
        optimizer.step()
    return network.eval()


def accuracy(network: nn.Module, seen: Tensor) -> float:
    with torch.no_grad():
        return float((network(seen[MINE]).logits.argmax(1) == TRUE[MINE]).float().mean())


@pytest.fixture(scope="module")
def vit() -> Vit:
    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        image_size=16, patch_size=8, num_channels=3, num_labels=10,
    )  # fmt: skip
    return trained_on(Vit(config), as_seen(), 60)


@pytest.fixture
def saved(vit, tmp_path):
    """A directory as save_pretrained writes it, with changed files; None removes one."""

    def write(network=vit, **changes):
        directory = tmp_path / "vit"
        network.save_pretrained(directory, max_shard_size=changes.pop("shards", "1TB"))
        files = {"preprocessor_config": PROCESSOR, **changes}
        for name, content in files.items():
            file = directory / f"{name}.json"
            known = json.loads(file.read_text()) if name == "config" else {}
            if content is not None:
                file.write_text(json.dumps({**known, **content}))
        return directory

    return write


def table(labels=None, named=None) -> pa.Table:
    made = digits_table(COUNT).set_column(1, "pixels", pa.array([png(each) for each in PICTURES]))
    if labels is not None:
        made = made.set_column(2, "digit", pa.array(labels))
    if named is not None:
        feature = {"digit": {"names": named, "_type": "ClassLabel"}}
        made = made.replace_schema_metadata(
            {"huggingface": json.dumps({"info": {"features": feature}})}
        )
    return made


@pytest.fixture
def measured(indexed, named, run, refreshed):
    """Register such a directory; the accuracy that Lethe measures, and the model's row."""

    def register(directory, columns=None, definition=None, row=None, **declared):
        columns = table() if columns is None else columns
        dataset = indexed(columns, **{"kind": "image", "input_shape": None, **(definition or {})})
        model = named(
            dataset,
            weights_uri=str(directory),
            architecture={"kind": "transformers"},
            head="classifier",
            preprocessing=declared.get("preprocessing", {}),
            declared={"preprocessing": {}, **declared},
            **(row or {}),
        )
        bench = run(model)
        for attempt in bench.transaction():
            with attempt as session:
                query = select(ModelVersion).filter_by(model_id=model.id)
                figures = session.scalars(query).one().figures
        return figures["retain_accuracy"], refreshed(model)

    return register


def test_the_network_has_learned_something(vit):
    assert accuracy(vit, as_seen()) > 0.8


def test_preprocessing_is_read_beside_the_weights(vit, saved, measured):
    found, model = measured(saved())

    assert found == pytest.approx(accuracy(vit, as_seen()), abs=0.01)
    assert model.found["preprocessing_source"] == "preprocessor_config.json"
    assert model.preprocessing["mean"] == PROCESSOR["image_mean"]


def test_preprocessing_of_a_processor_of_several_parts_is_read(vit, saved, measured):
    directory = saved(
        preprocessor_config=None, processor_config={"image_processor": PROCESSOR, "x": 1}
    )
    found, model = measured(directory)

    assert found == pytest.approx(accuracy(vit, as_seen()), abs=0.01)
    assert model.found["preprocessing_source"] == "processor_config.json"


@pytest.mark.parametrize(
    ("files", "declared", "message"),
    [
        (
            {},
            {"preprocessing": {"mean": [0.5]}},
            r"contradicts preprocessor_config\.json .*mean is \[0\.2, 0\.3, 0\.4\] there",
        ),
        (
            {"preprocessor_config": {**PROCESSOR, "image_processor_type": "MobileViTImageProcessor",
                                     "do_flip_channel_order": True}},
            {},
            "does something that `preprocessing` cannot say",
        ),
        (
            {"preprocessor_config": {**PROCESSOR, "do_pad": True, "size": {"longest_edge": 16}}},
            {},
            'preprocessing_source: "declared"',
        ),
        (
            {"preprocessor_config": {**PROCESSOR, "image_processor_type": "OwnProcessor",
                                     "auto_map": {"AutoImageProcessor": "evil.Own"}}},
            {},
            'preprocessing_source: "declared"',
        ),
        (
            {"processor_config": {"image_processor": {**PROCESSOR, "image_mean": [0.5] * 3}}},
            {},
            "describe different preprocessing",
        ),
        ({"config": {"quantization_config": {"bits": 4}}}, {}, "quantised"),
        ({"adapter_config": {"r": 8}}, {}, r"merge_and_unload\(\)"),
        ({}, {"classes": NAMES[:9]}, "The model has 9 classes and the dataset 10"),
        ({"config": {"id2label": dict(enumerate(NAMES[::-1]))}}, {}, "class 0 is 'nine' for the"),
        (
            {"config": {"id2label": dict(enumerate(NAMES))}},
            {"classes": NAMES[::-1]},
            "contradicts config.json beside the weights: class 0 is 'nine' in one",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_right_is_refused(saved, measured, files, declared, message):
    with pytest.raises(JobError, match=message):
        measured(saved(**files), table(named=NAMES), **declared)


def test_what_is_declared_wins_when_it_says_so(vit, saved, measured):
    directory = saved(preprocessor_config={**PROCESSOR, "image_mean": [9.0, 9.0, 9.0]})
    right = {
        "resize": [16, 16], "scale": 1 / 255,
        "mean": PROCESSOR["image_mean"], "std": PROCESSOR["image_std"],
    }  # fmt: skip
    found, model = measured(directory, preprocessing=right, preprocessing_source="declared")

    assert found == pytest.approx(accuracy(vit, as_seen()), abs=0.01)
    assert (model.preprocessing, model.found["preprocessing_source"]) == (right, "declared")


@pytest.mark.parametrize("how", ["shards", "float16", "bfloat16", "float64", "evil"])
def test_other_ways_to_save_the_same_network(vit, saved, measured, how):
    directory = saved(shards="20KB" if how == "shards" else "1TB")
    if how == "evil":
        config = json.loads((directory / "config.json").read_text())
        config |= {"_attn_implementation": "evil/kernel", "attribute_map": {"a": "b"}}
        (directory / "config.json").write_text(json.dumps(config))
    elif how != "shards":
        state = {name: each.to(getattr(torch, how)) for name, each in vit.state_dict().items()}
        vit.save_pretrained(directory, state_dict=state)
    assert (how == "shards") == (len(list(directory.glob("*.safetensors"))) > 1)

    assert measured(directory)[0] == pytest.approx(accuracy(vit, as_seen()), abs=0.01)


@pytest.fixture
def permuted(vit) -> Vit:
    """The same network with its outputs in another order, and names that say which."""
    network = Vit(vit.config)
    network.load_state_dict(vit.state_dict())
    with torch.no_grad():
        network.classifier.weight.copy_(vit.classifier.weight[ORDER])
        network.classifier.bias.copy_(vit.classifier.bias[ORDER])
    return network.eval()


@pytest.fixture
def in_another_order(permuted, saved):
    names = [NAMES[digit] for digit in ORDER]
    numbers = {name: number for number, name in enumerate(names)}
    return saved(permuted, config={"id2label": dict(enumerate(names)), "label2id": numbers})


@pytest.mark.parametrize("labels", ["numbers", "text", "dictionary"])
def test_labels_are_translated_when_asked(vit, in_another_order, measured, labels):
    written = {
        "numbers": table(named=NAMES),
        "text": table([NAMES[n] for n in TRUE]),
        "dictionary": table(pa.array([NAMES[n] for n in TRUE]).dictionary_encode()),
    }[labels]
    declared = None if labels == "numbers" else {"classes": NAMES}
    found, model = measured(in_another_order, written, declared, map_classes=True)

    assert found == pytest.approx(accuracy(vit, as_seen()), abs=0.01)
    assert model.found["classes"] == [NAMES[digit] for digit in ORDER]
    assert model.found["classes_source"] == "config.json"


def test_every_label_of_a_job_is_in_the_models_order(
    in_another_order, measured, bench_of, refreshed
):
    _, model = measured(in_another_order, table(named=NAMES), map_classes=True)
    of_digit = {f"digit-{n}": ORDER.index(int(digit)) for n, digit in enumerate(TRUE)}
    bench = bench_of(Job(kind=JobKind.UNLEARN, model_id=model.id))
    train = [f"digit-{n}" for n in range(COUNT) if PARTS[n] == Split.TRAIN]
    for attempt in bench.transaction():
        with attempt as session:
            job = session.get_one(Job, bench.claim.job_id)
            chosen = select(Sample.sample_id).where(Sample.sample_id.in_(train[:30]))
            order = inputs.order_of(session, job, chosen, exact_asked=False)
    seen = inputs.read_inputs(bench, order, torch.full((10,), COUNT))

    assert seen.forget.labels.tolist() == [of_digit[name] for name in order.forget_ids]
    assert seen.audit.labels.tolist() == [of_digit[name] for name in seen.audit_ids]
    kept = seen.kept.filter(pa.compute.equal(seen.kept["split"], Split.TRAIN.value))
    assert seen.retain.labels.tolist() == [of_digit[n] for n in kept["sample_id"].to_pylist()]
    tests = seen.kept.filter(pa.compute.equal(seen.kept["split"], Split.TEST.value))
    assert seen.test.labels.tolist() == [of_digit[n] for n in tests["sample_id"].to_pylist()]
    remaining = inputs.read_remaining(bench, order)
    assert remaining.labels.tolist() == [of_digit[n] for n in train if n not in train[:30]]
    leaving = estimate.labels_of(order, dict(zip(train, TRUE[MINE].tolist(), strict=True)))
    assert leaving.tolist() == seen.forget.labels.tolist()


def test_reference_models_learn_labels_in_the_models_order(
    in_another_order, measured, bench_of, module_of, sync_sessions
):
    row = {"policy": {**POLICY, "reference_models": 2}, "recipe": "toy_recipes:note"}
    measured(in_another_order, table(named=NAMES), row=row, map_classes=True)
    seen = []

    def note(network, data, *, seed):
        seen.append(data.samples.labels)
        return network

    module_of("toy_recipes", note)
    with sync_sessions.begin() as session:
        job = session.scalars(select(Job.id).filter_by(kind=JobKind.TRAIN_REFERENCES)).one()
    train_references(bench_of(job, recipes=["toy_recipes:note"]))

    expected = torch.tensor([ORDER.index(int(digit)) for digit in TRUE[MINE]])
    assert torch.cat(seen).bincount().tolist() == expected.bincount().tolist()
    assert expected.bincount().tolist() != TRUE[MINE].bincount().tolist()


@pytest.fixture(scope="module")
def bert() -> BertForSequenceClassification:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=17, hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=32, num_labels=10, max_position_embeddings=64, pad_token_id=0,
    )  # fmt: skip
    tokens = torch.from_numpy(DIGITS.data[:COUNT].astype(np.int64))
    network = BertForSequenceClassification(config)
    return trained_on(network, tokens, 1)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"tokenizer_config": {"pad_token": "[PAD]", "added_tokens_decoder":
          {"0": {"content": "[PAD]"}}}}, None),
        ({"tokenizer_config": {"pad_token": "[PAD]"}}, None),
        ({"tokenizer_config": {"pad_token": {"content": "<p>"}, "added_tokens_decoder":
          {"3": {"content": "<p>"}}}}, "pads with token 3 .*config.json is 0"),
        ({"tokenizer_config": {"pad_token": "<p>"},
          "tokenizer": {"model": {"vocab": {"<p>": 5}}}}, "pads with token 5"),
        ({"special_tokens_map": {"pad_token": "<p>"},
          "tokenizer": {"added_tokens": [{"id": 4, "content": "<p>"}]}}, "pads with token 4"),
    ],
)  # fmt: skip
def test_the_tokenizer_must_pad_as_the_network_expects(
    bert, indexed, named, run, tmp_path, files, message
):
    bert.save_pretrained(tmp_path / "bert")
    for name, content in files.items():
        (tmp_path / "bert" / f"{name}.json").write_text(json.dumps(content))
    tokens = pa.array(DIGITS.data[:COUNT].astype(np.int32).tolist(), pa.list_(pa.int32()))
    dataset = indexed(
        digits_table(COUNT).set_column(1, "pixels", tokens), kind="tokens", input_shape=[64]
    )
    model = named(
        dataset, weights_uri=str(tmp_path / "bert"), architecture={"kind": "transformers"},
        head="classifier", preprocessing={}, declared={"preprocessing": {}}, accept_accuracy=True,
    )  # fmt: skip
    if message is None:
        run(model)
        return
    with pytest.raises(JobError, match=message):
        run(model)


@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn])
def test_codes_are_refused_before_anything_is_measured(
    digits, named, run, tmp_path, trained, dtype
):
    state = {name: each.clone() for name, each in trained.state_dict().items()}
    state["7.weight"] = (state["7.weight"] * 10).to(dtype)
    save_file(state, tmp_path / "codes.safetensors")

    with pytest.raises(JobError, match="quantised"):
        run(named(digits, weights_uri=str(tmp_path / "codes.safetensors")))


def test_a_shard_that_leads_out_of_the_roots_is_refused(saved, measured, tmp_path_factory):
    directory = saved(shards="20KB")
    shard = sorted(directory.glob("*.safetensors"))[1]
    outside = Path(tmp_path_factory.mktemp("outside")) / shard.name
    shard.replace(outside)
    shard.symlink_to(outside)

    with pytest.raises(JobError, match="outside the allowed directories"):
        measured(directory)
