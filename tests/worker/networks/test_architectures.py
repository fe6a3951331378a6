import copy
import json
import pickle
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors.torch import load_file, save_file, save_model
from torch import nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    ViTConfig,
)
from transformers import ViTForImageClassification as Vit
from transformers.utils import logging

from domain.errors import JobError
from worker.networks import architectures, weights
from worker.unlearning.network import Network

logging.disable_progress_bar()
ALLOWED = [f"toy_models:{name}" for name in ("linear", "tied", "number", "empty", "gone")]


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.second.weight = self.first.weight

    def forward(self, x):
        return self.second(self.first(x))


@pytest.fixture(autouse=True)
def toy_models(monkeypatch) -> ModuleType:
    module = ModuleType("toy_models")
    module.linear = lambda width=4, classes=3: nn.Sequential(nn.Linear(width, classes))
    module.tied = Tied
    module.number = lambda: 42
    module.empty = nn.ReLU
    monkeypatch.setitem(sys.modules, "toy_models", module)
    return module


def python(factory: str, **arguments) -> dict:
    return {"kind": "python", "factory": factory, "arguments": arguments}


@pytest.fixture
def vit() -> Vit:
    return Vit(
        ViTConfig(
            hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
            image_size=8, patch_size=4, num_channels=1, num_labels=5,
        )
    ).eval()  # fmt: skip


@pytest.fixture
def bert() -> BertForSequenceClassification:
    return BertForSequenceClassification(
        BertConfig(
            vocab_size=20, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
            intermediate_size=16, num_labels=3, pad_token_id=0,
        )
    ).eval()  # fmt: skip


def rebuilt(directory) -> nn.Module:
    architecture = architectures.completed({"kind": "transformers"}, directory)
    network = architectures.build(architecture, [])
    (file,) = found(directory)
    weights.load(network, file)
    return network


def found(location) -> list[Path]:
    return weights.files(location, Path)


def test_a_factory_is_called_with_its_arguments():
    network = architectures.build(python("toy_models:linear", width=7, classes=2), ALLOWED)

    assert network(torch.zeros(1, 7)).shape == (1, 2)
    assert not network.training


@pytest.mark.parametrize("allowed", [[], ["toy_models:tied"], ["toy_model:*"], ["toy_models"]])
def test_a_factory_that_is_not_allowed_is_not_called(allowed):
    with pytest.raises(JobError, match="'toy_models:linear' is not on the allow-list"):
        architectures.build(python("toy_models:linear"), allowed)


@pytest.mark.parametrize(
    ("architecture", "message"),
    [
        (python("toy_models:linear", depth=3), "raised TypeError: .*depth"),
        (python("toy_models:gone"), "raised AttributeError"),
        (python("toy_models:number"), r"returned a int; make it return a torch\.nn\.Module"),
        (python("toy_models:empty"), "has no parameters"),
    ],
)
def test_a_factory_that_fails_is_told_with_the_reason(architecture, message):
    with pytest.raises(JobError, match=message):
        architectures.build(architecture, ALLOWED)


def test_a_module_that_is_not_installed_is_told():
    with pytest.raises(JobError, match="raised ModuleNotFoundError"):
        architectures.build(python("nowhere.at.all:net"), ["nowhere.at.all:*"])


@pytest.mark.parametrize("factory", ["linear", "tied"])
def test_weights_come_back_as_they_were_saved(factory, tmp_path):
    saved, loaded = (architectures.build(python(f"toy_models:{factory}"), ALLOWED) for _ in "ab")

    weights.save(saved, tmp_path / "weights")
    weights.load(loaded, tmp_path / "weights")

    inputs = torch.rand(2, 4)
    assert torch.equal(saved(inputs), loaded(inputs))


def test_a_pickle_is_refused_whatever_its_name(tmp_path):
    path = tmp_path / "model.safetensors"
    torch.save(nn.Linear(4, 3).state_dict(), path)
    (tmp_path / "other.safetensors").write_bytes(pickle.dumps({"weight": 1}))

    for pickled in (path, tmp_path / "other.safetensors"):
        with pytest.raises(JobError, match="Only safetensors weights are accepted; convert"):
            found(pickled)
        with pytest.raises(JobError, match="Only safetensors weights are accepted; convert"):
            weights.load(nn.Linear(4, 3), pickled)


def test_weights_that_do_not_fit_are_listed(tmp_path):
    path = tmp_path / "weights"
    save_file({"weight": torch.zeros(2, 4), "bias": torch.zeros(3)}, path)
    with pytest.raises(JobError, match=r"misshapen: weight \(2, 4\) instead of \(3, 4\)"):
        weights.load(nn.Linear(4, 3), path)

    save_file({"weight": torch.zeros(3, 4), "extra": torch.zeros(3)}, path)
    with pytest.raises(JobError, match=r"\(missing: bias; unexpected: extra\)"):
        weights.load(nn.Linear(4, 3), path)

    deep = nn.Sequential(*(nn.Linear(1, 1) for _ in range(4)))
    with pytest.raises(JobError, match=r"missing: 0\.bias, .* and 3 more;"):
        weights.load(deep, path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named(tmp_path, value):
    network = nn.Linear(4, 3)
    nn.init.constant_(network.bias, value)
    save_model(network, str(tmp_path / "weights"))

    with pytest.raises(JobError, match="NaN or infinite values, in bias;"):
        weights.load(network, tmp_path / "weights")


def test_the_weights_of_a_directory_are_its_one_safetensors_file(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(JobError, match="Only safetensors weights are accepted"):
        found(tmp_path)

    save_file({"weight": torch.zeros(1)}, tmp_path / "a.safetensors")
    assert found(tmp_path) == [tmp_path / "a.safetensors"]

    save_file({"weight": torch.zeros(1)}, tmp_path / "b.safetensors")
    with pytest.raises(JobError, match=r"lie in several files \(a\.safetensors, b\.safetensors\)"):
        found(tmp_path)


def test_an_image_classifier_of_transformers_answers_as_it_did(vit, tmp_path):
    vit.save_pretrained(tmp_path)
    network, images = rebuilt(tmp_path), torch.rand(2, 1, 8, 8)

    assert torch.equal(network(images), vit(images).logits)


def test_a_text_classifier_of_transformers_does_not_look_at_padding(bert, tmp_path):
    bert.save_pretrained(tmp_path)
    network, tokens = rebuilt(tmp_path), torch.tensor([[5, 6, 7, 0, 0]])

    expected = bert(tokens, attention_mask=(tokens != 0).long()).logits
    assert torch.equal(network(tokens), expected)
    torch.testing.assert_close(network(tokens), bert(tokens[:, :3]).logits)


def test_the_head_of_a_transformers_network_goes_by_its_own_name(vit, tmp_path):
    vit.save_pretrained(tmp_path)
    network = Network(rebuilt(tmp_path), head="classifier", prepare=torch.Tensor.float)

    features, logits = network(torch.rand(2, 1, 8, 8))
    assert (features.shape, logits.shape) == ((2, 16), (2, 5))


def test_a_decoder_is_seen_at_its_last_token_that_is_not_padding(tmp_path):
    config = GPT2Config(
        vocab_size=9, n_embd=16, n_layer=1, n_head=2, n_positions=8, num_labels=5, pad_token_id=0
    )
    GPT2ForSequenceClassification(config).save_pretrained(tmp_path)
    module = rebuilt(tmp_path)
    pool = architectures.pooling(module, "score")
    network = Network(module, head="score", prepare=torch.Tensor.long, pool=pool)

    with torch.no_grad():
        features, logits = network(torch.tensor([[5, 6, 7, 0, 0], [1, 2, 3, 4, 5]]))

    assert features.shape == (2, 16)
    torch.testing.assert_close(module.score(features), logits)


def test_only_a_linear_head_of_transformers_is_pooled(vit, tmp_path):
    vit.save_pretrained(tmp_path)

    assert architectures.pooling(rebuilt(tmp_path), "vit") is None
    assert architectures.pooling(nn.Sequential(nn.Linear(2, 2)), "0") is None


def test_a_wildcard_does_not_allow_what_the_module_imports():
    architecture = {"kind": "python", "factory": "devstack.demo.digits:save_model"}
    own = architectures.build(
        {"kind": "python", "factory": "devstack.demo.digits:cnn"}, ["devstack.demo.digits:*"]
    )
    assert isinstance(own, nn.Module)

    with pytest.raises(JobError, match="only imported there"):
        architectures.build(architecture, ["devstack.demo.digits:*"])


def test_a_copy_of_a_transformers_network_is_a_network_of_its_own(vit, tmp_path):
    vit.save_pretrained(tmp_path)
    network, images = rebuilt(tmp_path), torch.rand(2, 1, 8, 8)
    changed = copy.deepcopy(network)
    nn.init.zeros_(changed.classifier.weight)

    assert torch.equal(network(images), vit(images).logits)
    assert not torch.equal(changed(images), network(images))


def test_weights_are_saved_under_the_names_transformers_reads(vit, tmp_path):
    vit.save_pretrained(tmp_path / "before")
    network = copy.deepcopy(rebuilt(tmp_path / "before"))
    nn.init.zeros_(network.classifier.weight)

    (tmp_path / "after").mkdir()
    weights.save(network, tmp_path / "after" / "model.safetensors")

    assert [path.name for path in (tmp_path / "after").iterdir()] == ["model.safetensors"]
    vit.config.save_pretrained(tmp_path / "after")
    read = Vit.from_pretrained(tmp_path / "after").eval()
    images = torch.rand(2, 1, 8, 8)
    assert torch.equal(read(images).logits, network(images))
    assert torch.equal(rebuilt(tmp_path / "after")(images), network(images))


def test_transformers_weights_that_do_not_fit_are_listed(vit, tmp_path):
    vit.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["classifier.bias"]
    tensors |= {"extra": torch.zeros(1), "classifier.weight": torch.zeros(2, 16)}
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})

    with pytest.raises(JobError) as refusal:
        rebuilt(tmp_path)

    assert "missing: classifier.bias; unexpected: extra; misshapen: classifier.weight (2, 16)" in (
        str(refusal.value)
    )


def test_half_precision_weights_compute_in_float32(vit, tmp_path):
    vit.half().save_pretrained(tmp_path)

    assert {parameter.dtype for parameter in rebuilt(tmp_path).parameters()} == {torch.float32}


def test_weights_without_a_config_are_refused(tmp_path):
    with pytest.raises(JobError, match=r"No readable config\.json beside the weights"):
        architectures.completed({"kind": "transformers"}, tmp_path)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "unheard-of"}, "raised ValueError"),
        ({}, "names no model_type"),
        ({"model_type": "bert", "hidden_size": "wide"}, "The transformers config raised"),
        ({"model_type": "bert", "architectures": ["BertForMaskedLM"]}, "not that of an image or"),
    ],
)
def test_a_config_that_is_no_classifiers_is_refused(config, message):
    with pytest.raises(JobError, match=message):
        architectures.build({"kind": "transformers", "config": config}, [])


def test_a_config_cannot_bring_code_along(vit, tmp_path):
    vit.save_pretrained(tmp_path)
    (tmp_path / "evil.py").write_text("raise SystemExit('code from a checkpoint ran')")
    config = json.loads((tmp_path / "config.json").read_text())
    config["auto_map"] = {
        "AutoConfig": "evil.Config", "AutoModelForImageClassification": "evil.Net",
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))

    assert type(rebuilt(tmp_path)) is Vit
