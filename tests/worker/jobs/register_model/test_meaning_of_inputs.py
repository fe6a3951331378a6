"""Classifiers trained on correctly read inputs: the accuracy that Lethe measures is the true one,
or the registration is refused with a sentence that says what to do."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from safetensors.torch import save_model
from sqlalchemy import select
from torch import Tensor, nn
from transformers import BertConfig, BertForSequenceClassification

from domain.errors import JobError
from domain.tables import Model, ModelVersion
from tests.worker.data import unusual_images as unusual
from worker.jobs.index_dataset import index_dataset
from worker.jobs.register_model import register_model

COUNT, SIDE, CLASSES, LENGTH, WORDS = 90, 8, 3, 6, 16
LABELS = np.arange(COUNT) % CLASSES
PARTS = np.array(["train", "train", "train", "train", "valid", "test"])[np.arange(COUNT) // 3 % 6]
DICE = np.random.default_rng(0)
SLOPE = np.tile(np.linspace(20, 200, SIDE), (SIDE, 1))
PICTURES = np.stack(
    [
        np.dstack([[SLOPE, SLOPE[:, ::-1], SLOPE.T][label]] * 3)
        + DICE.normal(0, 30, (SIDE, SIDE, 3))
        for label in LABELS
    ]
)
PICTURES = PICTURES.clip(0, 255).astype(np.uint8)
"""(COUNT, SIDE, SIDE, 3): brighter to the right, to the left, or to the bottom."""

TURNED = np.stack([np.rot90(picture) if n % 2 else picture for n, picture in enumerate(PICTURES)])
GREY = PICTURES[..., :1]
TOKENS = DICE.integers(0, 6, (COUNT, LENGTH)) + 5 * LABELS[:, None]
SAME_IDS = np.tile(np.arange(1, LENGTH + 1), (COUNT, 1))  # 0 would be padding
TYPES = (np.arange(LENGTH) >= 1 + 2 * LABELS[:, None]).astype(np.int64)
"""(COUNT, LENGTH): where the second sequence of a pair begins is all that tells the classes."""


class Flat(nn.Module):
    """A linear classifier of arrays of any shape."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.head = nn.Linear(width, CLASSES)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(inputs.flatten(1))


class Words(nn.Module):
    """A linear classifier of the words that occur, in one sequence or in two."""

    def __init__(self, known: int = WORDS, sequences: int = 1) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(known, 12), nn.Linear(12 * sequences, CLASSES)

    def forward(self, first: Tensor, second: Tensor | None = None) -> Tensor:
        both = [first] if second is None else [first, second]
        return self.head(torch.cat([self.embed(ids).mean(1) for ids in both], 1))


@dataclass(frozen=True)
class Case:
    """A dataset, what a network was trained on, and what should come of them."""

    kind: str
    stored: Any
    """The input column, or several by name."""

    trained_on: Any
    """What the network took in training."""

    refused: str = ""
    preprocessing: dict[str, Any] = field(default_factory=dict)
    definition: dict[str, Any] = field(default_factory=dict)
    network: Callable[[], nn.Module] | None = None
    """Builds the network; by default a linear one of the right width."""


def scaled(pictures: np.ndarray) -> np.ndarray:
    """(N, C, H, W) as a network gets images."""
    return (pictures / 255).transpose(0, 3, 1, 2).astype(np.float32)


def files(make: Callable[[np.ndarray], bytes], pictures: np.ndarray = PICTURES) -> pa.Array:
    """Every second image in another way than plain PNG."""
    plain = [unusual.saved(Image.fromarray(each.squeeze()), "PNG") for each in pictures]
    return pa.array([make(each) if n % 2 else plain[n] for n, each in enumerate(pictures)])


def lists(values: np.ndarray, kind: pa.DataType, size: int = -1) -> pa.Array:
    return pa.array(values.reshape(COUNT, -1).tolist(), pa.list_(kind, size))


def alternately(changed: np.ndarray) -> np.ndarray:
    """The pictures of `files` as they look where every second one looks like this."""
    odd = (np.arange(COUNT) % 2 == 1)[:, None, None, None]
    return np.where(odd, changed, PICTURES)


def shown_in_srgb() -> np.ndarray:
    """Pictures whose numbers are linear in light, as a screen shows them."""
    light = PICTURES / 255
    curve = np.where(light < 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
    return (curve * 255).round().astype(np.uint8)


def half_white() -> np.ndarray:
    white = PICTURES.copy()
    white[:, :, SIDE // 2 :] = 255
    return white


def resized() -> np.ndarray:
    large = [Image.fromarray(each).resize((24, 16)) for each in PICTURES]
    sized = [np.asarray(each.resize((12, 8), Image.Resampling.BICUBIC)) for each in large]
    return np.stack(sized)[:, :, 2:10]


def upright(picture: np.ndarray) -> bytes:
    return unusual.turned(np.rot90(picture).copy(), 6, "PNG")


def linear_light(picture: np.ndarray) -> bytes:
    return unusual.saved(Image.fromarray(picture), "PNG", icc_profile=unusual.profile(1.0))


def large(picture: np.ndarray) -> bytes:
    return unusual.saved(Image.fromarray(picture).resize((24, 16)), "PNG")


def pair() -> nn.Module:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=WORDS, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, num_labels=CLASSES, initializer_range=0.5,
    )  # fmt: skip
    return BertForSequenceClassification(config)


SHAPE = {"input_shape": [3, SIDE, SIDE]}
CHANNELS_FIRST = PICTURES.transpose(0, 3, 1, 2)
PAIR = {
    "ids": lists(SAME_IDS, pa.int32()),
    "token_type_ids": lists(TYPES, pa.int8()),
    "label2": lists(TYPES, pa.int8()),
}
DEEP = unusual.UNUSUAL["sixteen_bit"]
CASES = {
    "photos with an EXIF orientation": Case(
        "image", files(upright), scaled(PICTURES), "45 images are to be turned"
    ),
    "the same, turned": Case(
        "image", files(upright), scaled(PICTURES), preprocessing={"orientation": "exif"}
    ),
    "the same, trained as they are stored": Case(
        "image", files(upright), scaled(TURNED), preprocessing={"orientation": "ignore"}
    ),
    "16-bit grey PNG": Case(
        "image", files(DEEP[1]), scaled(GREY), "45 images are of 16 bits", {"mode": "L"}
    ),
    "the same, upper bits": Case(
        "image", files(lambda each: DEEP[1](each), PICTURES * 0 + GREY), scaled(GREY),
        preprocessing={"mode": "L", "sixteen_bit": "high_byte"},
    ),
    "16-bit colour PNG": Case("image", files(DEEP[0]), scaled(PICTURES), "16 bits per channel"),
    "the same, upper bits of colours": Case(
        "image", files(DEEP[0]), scaled(PICTURES), preprocessing={"sixteen_bit": "high_byte"}
    ),
    "CMYK": Case("image", files(unusual.UNUSUAL["cmyk"][1]), scaled(PICTURES), "are in CMYK"),
    "CMYK as Pillow converts it": Case(
        "image", files(unusual.UNUSUAL["cmyk"][1]), scaled(PICTURES),
        preprocessing={"cmyk": "naive"},
    ),
    "transparent PNG": Case(
        "image", files(unusual.see_through), scaled(PICTURES), "45 images are partly transparent"
    ),
    "transparent PNG on white": Case(
        "image", files(unusual.see_through), scaled(alternately(half_white())),
        preprocessing={"alpha": "white"},
    ),
    "TIFF of two pages": Case(
        "image", files(unusual.UNUSUAL["several_frames"][3]), scaled(PICTURES), "of several pages"
    ),
    "TIFF, the first page": Case(
        "image", files(unusual.UNUSUAL["several_frames"][3]), scaled(PICTURES),
        preprocessing={"frames": "first"},
    ),
    "colour profile of linear light": Case(
        "image", files(linear_light), scaled(alternately(shown_in_srgb())),
        "in the colours of a profile",
    ),
    "the same, converted to sRGB": Case(
        "image", files(linear_light), scaled(alternately(shown_in_srgb())),
        preprocessing={"color_profile": "srgb"},
    ),
    "float TIFF": Case(
        "image", files(unusual.UNUSUAL["not_bytes"][1]), scaled(PICTURES), "numbers other than"
    ),
    "shorter side, bicubic, centre crop": Case(
        "image", pa.array([large(each) for each in PICTURES]), scaled(resized()),
        preprocessing={
            "resize": {"shortest_edge": 8}, "interpolation": "bicubic", "crop": [8, 8],
        },
    ),
    "pixels uint8": Case(
        "pixels", lists(CHANNELS_FIRST, pa.uint8()), scaled(PICTURES), definition=SHAPE
    ),
    "pixels uint16 without a scale": Case(
        "pixels", lists(CHANNELS_FIRST, pa.uint16()), scaled(PICTURES),
        "stored as uint16, so `preprocessing.scale`", definition=SHAPE,
    ),
    "pixels uint16 of 16 bits": Case(
        "pixels", lists(CHANNELS_FIRST.astype(int) * 257, pa.uint16()), scaled(PICTURES),
        preprocessing={"scale": 1 / 65535}, definition=SHAPE,
    ),
    "features, bytes": Case(
        "features", lists(CHANNELS_FIRST, pa.uint8()),
        CHANNELS_FIRST.reshape(COUNT, -1).astype(np.float32),
    ),
    "features, integers": Case(
        "features", lists(CHANNELS_FIRST, pa.int64()),
        CHANNELS_FIRST.reshape(COUNT, -1).astype(np.float32),
    ),
    "features with a scale": Case(
        "features", lists(CHANNELS_FIRST, pa.float32()), CHANNELS_FIRST.astype(np.float32),
        "`scale` in `preprocessing` does not apply", {"scale": 1 / 255},
    ),
    "tokens, bytes": Case("tokens", lists(TOKENS, pa.uint8()), TOKENS, network=Words),
    "tokens that are not in the vocabulary": Case(
        "tokens", lists(TOKENS, pa.int32()), TOKENS % 9,
        "'embed' of the network knows the ids from 0 to 8, but the dataset has the id 1",
        network=lambda: Words(9),
    ),
    "tokens, floats": Case(
        "tokens", lists(TOKENS, pa.float32()), TOKENS, "must be a flat list of integers",
        network=Words,
    ),
    "pairs without their second input": Case(
        "tokens", PAIR, [SAME_IDS, TYPES], "'token_type_ids', without which",
        definition={"columns": {"input": "ids"}}, network=pair,
    ),
    "pairs": Case(
        "tokens", PAIR, [SAME_IDS, TYPES],
        definition={
            "columns": {"input": {"input_ids": "ids", "token_type_ids": "token_type_ids"}}
        },
        network=pair,
    ),
    "two sequences for a factory": Case(
        "tokens", {"a": lists(TOKENS * 0, pa.int16()), "b": lists(TOKENS, pa.int16())},
        [TOKENS * 0, TOKENS],
        definition={"columns": {"input": {"second": "b", "first": "a"}}},
        network=lambda: Words(sequences=2),
    ),
    "lists of fixed size with a null": Case(
        "features",
        pa.array([None, *TOKENS[1:].tolist()], pa.list_(pa.float32(), LENGTH)),
        TOKENS.astype(np.float32), "1 of 90 rows are bad (1 input missing)",
    ),
}  # fmt: skip


def fitted(case: Case) -> tuple[nn.Module, float]:
    """The case's network, its head fitted to what it was trained on, and its true accuracy."""
    torch.manual_seed(0)
    several = isinstance(case.trained_on, list)
    inputs = [torch.as_tensor(each) for each in (case.trained_on if several else [case.trained_on])]
    network = case.network() if case.network else Flat(inputs[0][0].numel())
    network.eval()
    how: dict[str, Tensor] = {}
    if case.network is pair:
        inputs, how = [], {"input_ids": inputs[0], "token_type_ids": inputs[1].long()}
    head = network.classifier if case.network is pair else network.head
    entered: list[Tensor] = []
    hook = head.register_forward_pre_hook(lambda _, args: entered.append(args[0]))
    train = torch.from_numpy(PARTS == "train")
    with torch.no_grad():
        network(*inputs, **how)
        hook.remove()
        known = torch.cat([entered[0], torch.ones(COUNT, 1)], 1).double()
        wanted = nn.functional.one_hot(torch.from_numpy(LABELS)).double()
        ridge = known[train].T @ known[train] + 1e-3 * torch.eye(known.shape[1]).double()
        weights = torch.linalg.solve(ridge, known[train].T @ wanted[train]).float()
        head.weight.copy_(weights[:-1].T)
        head.bias.copy_(weights[-1])
        answers = network(*inputs, **how)
    logits = answers.logits if case.network is pair else answers
    right = (logits.argmax(1).numpy() == LABELS)[PARTS == "train"]
    return network, float(right.mean())


@pytest.fixture
def measured(write, register, definition, bench_for, sync_sessions, tmp_path, module_of, refreshed):
    """Index the dataset, register the network, and say what accuracy was measured."""

    def measure(case: Case, network: nn.Module) -> float:
        inputs = case.stored if isinstance(case.stored, dict) else {"pixels": case.stored}
        columns = {
            "id": [f"s{n}" for n in range(COUNT)], **inputs, "digit": LABELS, "part": PARTS,
        }  # fmt: skip
        known = {**definition, "input_shape": None, "kind": case.kind, **case.definition}
        known["columns"] = {**definition["columns"], **known["columns"]}
        dataset = register(write(columns), definition=known)
        index_dataset(bench_for(dataset))
        if failure := refreshed(dataset).failure:
            raise JobError(failure)
        if case.network is pair:
            network.save_pretrained(tmp_path / "weights")
            place, built, head = "weights", {"kind": "transformers"}, "classifier"
        else:
            save_model(network, str(tmp_path / "weights.safetensors"))
            module_of("toy_inputs", lambda: None).build = lambda: network
            place, head = "weights.safetensors", "head"
            built = {"kind": "python", "factory": "toy_inputs:build"}
        model = Model(
            name="m", dataset_id=dataset.id, weights_uri=str(tmp_path / place),
            architecture=built, head=head, preprocessing=case.preprocessing,
            policy={"reservoir_samples": 60, "evaluation_samples": 60},
        )  # fmt: skip
        with sync_sessions.begin() as session:
            session.add(model)
        register_model(bench_for(model, factories=["toy_inputs:build"]))
        with sync_sessions.begin() as session:
            version = session.scalars(select(ModelVersion).filter_by(model_id=model.id)).one()
            return float(version.figures["retain_accuracy"])

    return measure


@pytest.mark.parametrize("name", CASES)
def test_the_accuracy_measured_is_the_true_one_or_the_registration_is_refused(name, measured):
    case = CASES[name]
    network, true = fitted(case)

    if case.refused:
        with pytest.raises(JobError) as refusal:
            measured(case, network)
        assert case.refused in str(refusal.value)
    else:
        assert true > 0.9
        assert measured(case, network) == pytest.approx(true, abs=0.01)
