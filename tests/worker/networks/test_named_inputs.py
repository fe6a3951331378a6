import copy
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
)

from domain.errors import JobError
from worker.networks import architectures, weights
from worker.unlearning.network import Network

IDS = torch.tensor([[5, 6, 7, 0, 0], [1, 2, 3, 4, 5]])
MASK = torch.tensor([[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]])
TYPES = torch.tensor([[0, 0, 1, 1, 1], [0, 1, 1, 1, 1]])
TINY = {"vocab_size": 9, "num_labels": 5, "pad_token_id": 0}


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(9, 4), nn.Linear(8, 3)

    def forward(self, question, answer):
        parts = [self.embed(ids).mean(1) for ids in (question, answer)]
        return self.head(torch.cat(parts, 1))


@pytest.fixture
def bert() -> BertForSequenceClassification:
    torch.manual_seed(0)
    config = BertConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, **TINY
    )
    return BertForSequenceClassification(config).eval()


def rebuilt(model: nn.Module, directory, *names: str) -> nn.Module:
    model.save_pretrained(directory)
    known = architectures.completed({"kind": "transformers"}, directory)
    network = architectures.build({**known, "inputs": list(names)}, [])
    weights.load(network, *weights.files(directory, Path))
    return network


def test_a_network_of_transformers_gets_its_inputs_by_name(bert, tmp_path):
    network = rebuilt(bert, tmp_path, "token_type_ids", "input_ids", "attention_mask")

    answer = network(torch.stack([TYPES, IDS, MASK], 1))

    expected = bert(input_ids=IDS, attention_mask=MASK, token_type_ids=TYPES).logits
    assert torch.equal(answer, expected)
    assert torch.equal(copy.deepcopy(network)(torch.stack([TYPES, IDS, MASK], 1)), expected)
    assert not torch.allclose(expected, bert(input_ids=IDS, attention_mask=MASK).logits)


def test_without_a_mask_of_its_own_padding_is_not_looked_at(bert, tmp_path):
    network = rebuilt(bert, tmp_path, "input_ids", "token_type_ids")

    expected = bert(IDS, token_type_ids=TYPES, attention_mask=(IDS != 0).long()).logits
    assert torch.equal(network(torch.stack([IDS, TYPES], 1)), expected)


def test_a_decoder_with_a_mask_is_seen_at_the_token_whose_logits_count(tmp_path):
    config = GPT2Config(n_embd=16, n_layer=1, n_head=2, n_positions=8, **TINY)
    network = rebuilt(
        GPT2ForSequenceClassification(config), tmp_path, "attention_mask", "input_ids"
    )
    seen = Network(
        network,
        head="score",
        prepare=torch.Tensor.long,
        pool=architectures.pooling(network, "score"),
    )

    with torch.no_grad():
        features, logits = seen(torch.stack([MASK, IDS], 1))

    torch.testing.assert_close(network.score(features), logits)


def test_a_network_of_a_factory_gets_its_inputs_by_name(monkeypatch):
    module = ModuleType("toy_pairs")
    module.pair = Pair
    monkeypatch.setitem(sys.modules, "toy_pairs", module)
    known = {"kind": "python", "factory": "toy_pairs:pair", "inputs": ["answer", "question"]}
    network = architectures.build(known, ["toy_pairs:pair"])

    answers = network(torch.stack([IDS, TYPES], 1))

    assert torch.equal(answers, Pair.forward(network, question=TYPES, answer=IDS))
    with pytest.raises(JobError, match="takes no argument 'mask'; it takes question, answer"):
        architectures.build({**known, "inputs": ["question", "mask"]}, ["toy_pairs:pair"])


def test_an_argument_that_a_network_of_transformers_would_ignore_is_refused(tmp_path):
    config = DistilBertConfig(dim=16, n_layers=1, n_heads=2, hidden_dim=16, **TINY)
    model = DistilBertForSequenceClassification(config)

    with pytest.raises(JobError, match="takes no argument 'token_type_ids'; it takes input_ids"):
        rebuilt(model, tmp_path, "input_ids", "token_type_ids")
    with pytest.raises(JobError, match="needs the argument 'input_ids'"):
        rebuilt(model, tmp_path, "attention_mask")
