"""A network is its backbone with another head, or it is told which tensors are not."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    ViTConfig,
    ViTForImageClassification,
    ViTModel,
)

from domain.errors import JobError
from worker.networks import architectures, backbones, weights


def classifier():
    torch.manual_seed(0)
    body = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 8))
    return nn.ModuleDict({"body": body, "head": nn.Linear(8, 3)})


@pytest.fixture
def stored(tmp_path):
    def save(tensors, name="backbone.safetensors"):
        save_file({n: t.detach().clone().contiguous() for n, t in tensors.items()}, tmp_path / name)
        return [tmp_path / name]

    return save


@pytest.mark.parametrize("rename", ["body.{}", "{}", "model.encoder.{}"])
def test_names_may_begin_otherwise(stored, rename):
    model = classifier()
    public = {rename.format(name): t for name, t in model["body"].state_dict().items()}
    public["lm_head.weight"] = torch.zeros(2, 2)  # what a backbone has besides does not matter

    assert backbones.require_equal(model, "head", stored(public)) == 9


def test_half_precision_is_equal_to_what_was_widened_from_it(stored):
    model = classifier()
    public = {
        name: t.half() if t.is_floating_point() else t
        for name, t in model["body"].state_dict().items()
    }
    model["body"].load_state_dict(public)

    assert backbones.require_equal(model, "head", stored(public)) == 9


def test_what_differs_is_named(stored):
    public = stored(classifier()["body"].state_dict())
    model = classifier()
    with torch.no_grad():
        model["body"][3].bias[0] = torch.nextafter(model["body"][3].bias[0], torch.tensor(9.0))
    with pytest.raises(JobError, match=r"1 of 9 tensors differ \(body\.3\.bias\)\. Train the head"):
        backbones.require_equal(model, "head", public)

    model = classifier()
    model["body"].train()(torch.randn(5, 4))
    with pytest.raises(JobError, match=r"running_mean.*keep all but the head in evaluation mode"):
        backbones.require_equal(model, "head", public)


def test_zeros_of_two_signs_are_not_the_same_bits(stored):
    model = classifier()
    with torch.no_grad():
        model["body"][0].bias.zero_()
        public = {n: t.clone() for n, t in model["body"].state_dict().items()}
        model["body"][0].bias.neg_()

    with pytest.raises(JobError, match=r"body\.0\.bias"):
        backbones.require_equal(model, "head", stored(public))


def test_what_the_backbone_lacks_is_named(stored):
    model = classifier()
    public = dict(model["body"].state_dict())
    del public["3.bias"]

    with pytest.raises(JobError, match=r"1 of 9 are not in its file \(body\.3\.bias\)"):
        backbones.require_equal(model, "head", stored(public))
    with pytest.raises(JobError, match="9 of 9 are not in its file"):
        backbones.require_equal(model, "head", stored({"other": torch.zeros(2)}))


def test_shards_count_together(stored):
    model = classifier()
    tensors = list(model["body"].state_dict().items())
    files = stored(dict(tensors[:4]), "1.safetensors") + stored(dict(tensors[4:]), "2.safetensors")

    assert backbones.require_equal(model, "head", files) == 9


def test_only_a_linear_head_that_stands_alone_can_be_fitted():
    model = classifier()
    assert backbones.require_linear(model, "head") is model["head"]
    with pytest.raises(JobError, match="is a Sequential"):
        backbones.require_linear(model, "body")
    model["body"].embedding = nn.Linear(8, 3)
    model["body"].embedding.weight = model["head"].weight
    with pytest.raises(JobError, match=r"shares its weights with body\.embedding\.weight"):
        backbones.require_linear(model, "head")
    with pytest.raises(JobError, match="nothing but its head"):
        backbones.require_equal(nn.ModuleDict({"head": nn.Linear(2, 2)}), "head", [])


SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
         "intermediate_size": 16}  # fmt: skip


@pytest.mark.parametrize(
    ("config", "public", "whole"),
    [
        (
            BertConfig(**SMALL, vocab_size=17, num_labels=3),
            BertModel,
            BertForSequenceClassification,
        ),
        (
            ViTConfig(**SMALL, image_size=16, patch_size=8, num_labels=3),
            lambda config: ViTModel(config, add_pooling_layer=False),
            ViTForImageClassification,
        ),
    ],
)
def test_classifiers_of_transformers_call_their_backbone_otherwise(tmp_path, config, public, whole):
    torch.manual_seed(0)
    base = public(config)
    model = whole(config)
    model.base_model.load_state_dict(base.state_dict())
    for name, each in (("public", base), ("whole", model)):
        each.save_pretrained(tmp_path / name)
    known = architectures.completed({"kind": "transformers"}, tmp_path / "whole")
    built = architectures.build(known, [])
    weights.load(built, tmp_path / "whole" / "model.safetensors")
    files = [tmp_path / "public" / "model.safetensors"]

    count = backbones.require_equal(built, "classifier", files)

    assert count == len(built.state_dict()) - 2
    with torch.no_grad():
        next(built.parameters()).add_(1e-3)
    with pytest.raises(JobError, match=f"1 of {count} tensors differ"):
        backbones.require_equal(built, "classifier", files)
