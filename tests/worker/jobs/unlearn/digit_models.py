"""Small models and inputs of each registrable kind, on handwritten digits."""

from functools import cache
from io import BytesIO

import numpy as np
import pyarrow as pa
import torch
from PIL import Image
from safetensors.torch import save_model
from sklearn.datasets import load_digits
from torch import nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    ViTConfig,
    ViTForImageClassification,
)

from worker.networks.recipes import TrainingData
from worker.unlearning.samples import Samples

COUNT = 300
DIGITS = load_digits()
PIXELS, LABELS = DIGITS.data[:COUNT], DIGITS.target[:COUNT]
PARTS = np.array(["train", "train", "train", "valid", "test"])[np.arange(COUNT) % 5]
TRAIN = [f"digit-{n}" for n in range(COUNT) if PARTS[n] == "train"]
NAMED = TRAIN[:20]
PEOPLE = [
    f"unseen {n // 30}" if PARTS[n] == "valid" and n >= 60 else f"trained {n // 30}"
    for n in range(COUNT)
]
"""Ten people in training, two of whom stand in the hold-out too, beside eight who do not."""


def training_samples(groups, of):
    return [f"digit-{n}" for n in range(COUNT) if groups[n] == of and PARTS[n] == "train"]


def perceptron() -> nn.Module:
    """An MLP without any batch normalisation, for flat arrays."""
    return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


def ruined_when_trained() -> nn.Module:
    """The same, but once it was in training mode it gives one answer to everything."""

    def spoil(module, args, logits):
        module.spoilt |= torch.tensor(module.training)
        ruined = module.spoilt and not module.training
        return (
            nn.functional.one_hot(torch.zeros(len(logits)).long(), 10) * 9.0 if ruined else logits
        )

    model = perceptron()
    model.register_buffer("spoilt", torch.tensor(False))  # whoever loads it gets the same answers
    model.register_forward_hook(spoil)
    return model


def not_finite_when_trained() -> nn.Module:
    model = perceptron()
    model.register_forward_hook(lambda m, _, logits: logits * torch.nan if m.training else logits)
    return model


def learn(model: nn.Module, data, *, seed: int) -> nn.Module:
    """A recipe that is over in half a second, and never uses training mode."""
    torch.manual_seed(seed)
    inputs, labels = data.batch(torch.arange(len(data)))
    optimizer = torch.optim.Adam(model.eval().parameters(), lr=0.01, fused=True)
    for _ in range(150):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), labels).backward()
        optimizer.step()
    return model


def learn_nothing(model: nn.Module, data, *, seed: int) -> nn.Module:
    return model


def learn_as_another(model: nn.Module, data, *, seed: int) -> nn.Module:
    return nn.Linear(64, 10)


FACTORIES = (perceptron, ruined_when_trained, not_finite_when_trained)
RECIPES = (learn, learn_nothing, learn_as_another)
ALLOWED = {
    "factories": [f"toy_models:{each.__name__}" for each in FACTORIES],
    "recipes": [f"toy_models:{each.__name__}" for each in RECIPES],
}


@cache
def trained() -> nn.Module:
    """The perceptron, with all training samples learned by heart."""
    torch.manual_seed(0)
    samples = Samples(
        torch.tensor(PIXELS[PARTS == "train"]), torch.tensor(LABELS[PARTS == "train"])
    )
    return learn(perceptron(), TrainingData(samples, lambda pixels: pixels.float() / 16), seed=0)


def flat_floats(folder):
    save_model(trained(), str(folder / "mlp.safetensors"))
    return {
        "kind": "pixels",
        "inputs": pa.array(PIXELS.astype(np.float32).tolist(), pa.list_(pa.float32())),
        "input_shape": [64],
        "weights_uri": str(folder / "mlp.safetensors"),
        "architecture": {"kind": "python", "factory": "toy_models:perceptron"},
        "head": "2",
        "preprocessing": {"scale": 1 / 16},
    }


def on_a_backbone(folder):
    """A perceptron of which nothing but the head learned; the rest is in a file of its own, where
    it has other names."""
    torch.manual_seed(0)
    model = perceptron()
    save_model(nn.ModuleDict({"body": model[:1]}), str(folder / "backbone.safetensors"))
    entering = torch.relu(model[0](torch.tensor(PIXELS[PARTS == "train"]).float() / 16)).detach()
    optimizer = torch.optim.Adam(model[2].parameters(), lr=0.05, fused=True)
    for _ in range(150):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(
            model[2](entering), torch.tensor(LABELS[PARTS == "train"])
        )
        loss.backward()
        optimizer.step()
    save_model(model, str(folder / "headed.safetensors"))
    return flat_floats(folder) | {
        "weights_uri": str(folder / "headed.safetensors"),
        "recipe": "worker.recipes:head",
        "backbone": {
            "weights": str(folder / "backbone.safetensors"), "source": "hub/perceptron@1",
            "trained_on_dataset": False, "l2": 1e-3,
        },
    }  # fmt: skip


def ruinous(folder):
    """The same model, which every run of the method spoils."""
    model = ruined_when_trained()
    model.load_state_dict(trained().state_dict(), strict=False)
    save_model(model, str(folder / "ruined.safetensors"))
    factory = "toy_models:ruined_when_trained"
    return flat_floats(folder) | {
        "architecture": {"kind": "python", "factory": factory},
        "weights_uri": str(folder / "ruined.safetensors"),
    }


def poisonous(folder):
    """The same model, whose answers in training mode are not finite."""
    factory = "toy_models:not_finite_when_trained"
    return flat_floats(folder) | {"architecture": {"kind": "python", "factory": factory}}


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
        "kind": "image",
        "inputs": pa.array([png(pixels) for pixels in PIXELS]),
        "input_shape": None,
        "weights_uri": str(folder / "vit"),
        "architecture": {"kind": "transformers"},
        "head": "classifier",
        "preprocessing": {"resize": [16, 16], "mode": "RGB", "mean": [0.5] * 3, "std": [0.5] * 3},
        "accept_accuracy": True,
    }


def token_ids(folder):
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=17, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, num_labels=10, max_position_embeddings=64,
    )  # fmt: skip
    BertForSequenceClassification(config).save_pretrained(folder / "bert")
    return {
        "kind": "tokens",
        "inputs": pa.array(PIXELS.astype(np.int32).tolist(), pa.list_(pa.int32())),
        "input_shape": [64],
        "weights_uri": str(folder / "bert"),
        "architecture": {"kind": "transformers"},
        "head": "classifier",
        "preprocessing": {},
        "accept_accuracy": True,
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
