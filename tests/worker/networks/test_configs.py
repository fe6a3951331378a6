"""A config.json is a stranger's file: what of it is believed."""

import json

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification, CLIPConfig, DebertaV2Config

from domain.errors import JobError
from worker.networks import architectures, configs

TINY = {
    "architectures": ["BertForSequenceClassification"], "model_type": "bert", "vocab_size": 20,
    "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16,
    "pad_token_id": 0, "id2label": {"0": "a/b: c", "1": "d", "2": "e"},
}  # fmt: skip


def built(**changes):
    return architectures.build({"kind": "transformers", "config": {**TINY, **changes}}, [])


@pytest.mark.parametrize(
    "changes",
    [
        {"_attn_implementation": "evil/kernel"},
        {"_attn_implementation_internal": "evil/kernel"},
        {"attn_implementation": "evil/kernel"},
        {"attn_implementation": {"": "flash_attention_2"}},
        {"experts_implementation": "evil/kernel", "_experts_implementation": "evil/kernel"},
        {"attribute_map": {"hidden_act": "_attn_implementation"}, "hidden_act": "evil/kernel"},
        {"auto_map": {"AutoModelForSequenceClassification": "evil--evil.Net"}},
        {"auto_map": {"AutoConfig": "evil.Config"}, "trust_remote_code": True},
        {"_name_or_path": "evil/repo", "name_or_path": "evil/repo", "_commit_hash": "a" * 40},
        {"use_kernels": True, "kernel_config": {"RMSNorm": "evil/kernel:Norm"}},
        {"some_later_implementation": "evil", "later_kernel_config": {"a": "evil"}},
        {"extra_files": ["/etc/passwd"], "extra_config_files": ["/etc/passwd"]},
        {"to_dict": "x", "sub_configs_defaults": {"text_config": {}}, "__class__": "x"},
        {"per_layer_config": {"0": {"_attn_implementation": "evil/kernel"}}},
        {"dtype": "float16", "torch_dtype": "evil", "return_dict": False, "torchscript": True},
        {"use_pretrained_backbone": True, "use_timm_backbone": None, "backbone": None},
        {"output_attentions": True, "output_hidden_states": True},
        {"quantization_config": None},
        {"note": "hub:evil/kernel", "where": ["hf-hub:a/b", "C:\\x"], "deep": {"a": {"b": "x/y"}}},
    ],
)
def test_no_key_can_bring_code_choose_a_kernel_or_reach_out(changes):
    network = built(**changes)

    assert type(network) is BertForSequenceClassification
    assert network.config._attn_implementation in ("sdpa", "eager")
    assert not getattr(network.config, "auto_map", None)
    assert network.config._name_or_path == ""
    told = json.dumps(network.config.to_dict(), default=str).replace("a/b: c", "")
    assert not any(word in told for word in ("evil", "hub", "/", ":\\"))
    with torch.no_grad():
        assert network(torch.tensor([[1, 2, 3]])).shape == (1, 3)


def test_nested_configs_are_cleaned_too():
    config = CLIPConfig(num_labels=3).to_dict()
    for part in ("text_config", "vision_config"):
        config[part] |= {"_attn_implementation": "evil/kernel", "auto_map": {"AutoModel": "a.B"}}
    cleaned = configs.cleaned(config)

    for part in ("text_config", "vision_config"):
        assert not {"auto_map", "_attn_implementation"} & cleaned[part].keys()
        assert cleaned[part]["hidden_size"] == config[part]["hidden_size"]
    assert configs.cleaned(cleaned) == cleaned


def test_keys_that_the_class_does_not_declare_but_networks_read_are_kept():
    config = {
        **DebertaV2Config().to_dict(), "norm_rel_ebd": "layer_norm", "share_att_key": True,
        "position_buckets": 256, "conv_kernel_size": 3,
    }  # fmt: skip
    cleaned = configs.cleaned(config)

    for key in ("norm_rel_ebd", "share_att_key", "position_buckets", "conv_kernel_size"):
        assert cleaned[key] == config[key]


def test_names_for_people_may_hold_any_character():
    assert built().config.id2label[0] == "a/b: c"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"quantization_config": {"quant_method": "gptq"}}, "quantized|quantised.*dequantize"),
        ({"text_config": {"quantization_config": {"bits": 4}}}, "weights are quantised"),
        ({"compression_config": {"format": "int"}}, "weights are quantised"),
        ({"backbone": "microsoft/resnet-50"}, "names the backbone .*backbone_config"),
        ({"problem_type": "multi_label_classification"}, "give each sample one class"),
        ({"problem_type": "regression"}, "give each sample one class"),
        ({"architectures": ["OwnBertForSequenceClassification"]}, "transformers does not have"),
        ({"deep": json.loads("[" * 40 + "]" * 40)}, "more than 16 levels"),
        ({"deep": json.loads('{"a":' * 40 + "1" + "}" * 40)}, "more than 16 levels"),
    ],
)
def test_what_would_build_another_network_is_refused(changes, message):
    with pytest.raises(JobError, match=message):
        built(**changes)


def test_numbers_that_json_has_not_come_back():
    assert configs.decoded({"a": [{"__float__": "-Infinity"}]}) == {"a": [float("-inf")]}


def test_a_config_with_numbers_that_postgres_has_not_is_read(tmp_path):
    text = json.dumps({**TINY, "layer_norm_eps": 1e-5, "odd": float("inf"), "nan": float("nan")})
    (tmp_path / "config.json").write_text(text)

    config = architectures.completed({"kind": "transformers"}, tmp_path)["config"]
    json.dumps(config, allow_nan=False)
    assert architectures.build({"kind": "transformers", "config": config}, []).config.odd == float(
        "inf"
    )


@pytest.mark.parametrize(
    ("config", "names"),
    [
        ({}, None),
        ({"id2label": {"0": "LABEL_0", "1": "LABEL_1"}}, None),
        ({"id2label": {"1": "dog", "0": "cat"}}, ["cat", "dog"]),
        ({"label2id": {"dog": 1, "cat": 0}}, ["cat", "dog"]),
        ({"id2label": {"0": "LABEL_0", "1": "LABEL_1"}, "label2id": {"b": 1, "a": 0}}, ["a", "b"]),
        ({"id2label": BertConfig(num_labels=4).id2label}, None),
    ],
)
def test_the_names_of_the_outputs(config, names):
    assert configs.class_names(config) == names


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"id2label": {"0": "a", "1": "b"}, "label2id": {"a": 1, "b": 0}}, "class 0 is 'a' in one"),
        ({"id2label": {"0": "a", "2": "b"}}, "does not number the classes from 0"),
        ({"id2label": ["a", "b"]}, "does not number the classes from 0"),
        ({"label2id": {"a": 0, "b": 0}}, "'a' and 'b' the same number"),
        ({"label2id": {"a": "zero"}}, "does not number the classes from 0"),
        ({"label2id": ["a"]}, "does not number the classes from 0"),
        ({"label2id": {"a": [0]}}, "does not number the classes from 0"),
    ],
)
def test_names_that_contradict_themselves_are_refused(config, message):
    with pytest.raises(JobError, match=message):
        configs.class_names(config)
