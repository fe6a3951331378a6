"""The forget sets: one mask over the training split for each scenario.

All scenarios share one training set, with some planted canaries: mislabelled records whose label a
model can only know by having seen them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from benchmarks.cifar_models import CLASSES, Data
from worker.unlearning.samples import Samples

SEQUENCE_SAMPLES, REQUEST_SAMPLES = 1000, 50
CAT, DOG, FROG, HORSE, SHIP, TRUCK = (
    CLASSES.index(name) for name in ("cat", "dog", "frog", "horse", "ship", "truck")
)
HELD_OUT = "held out"
"""The audit is evaluated on it and nothing is chosen; no method runs on it."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """A forget set, and how its retrained models are made."""

    name: str
    removing: bool
    """Whether the classes of the forget set are removed as a concept."""

    forgotten: Tensor
    """(N,) bool over the training split."""

    oracles: int
    """The number of retrained models."""

    retrained_without: Tensor
    """(N,) bool: what the oracles never saw, at least all of the forget set."""

    batches: int = 1
    """Number of successive requests that the forget set is split into."""

    parts: Mapping[str, Tensor] = field(default_factory=dict)
    """Parts (N,) of the forget set, by name, that the audit is also evaluated on: a model retrained
    without the whole set was retrained without each part."""

    @property
    def tuning(self) -> bool:
        """Whether settings are tuned on it, so that its figures are not reported."""
        return self.name.startswith("dev")


def plant_canaries(data: Data, count: int) -> tuple[Data, Tensor]:
    """The data with `count` training records mislabelled, and the mask (N,) of these records.

    The wrong label of record i of class y is (y + 1 + i mod 9) mod 10: never the right one.
    """
    mask = choose(torch.ones(len(data.train), dtype=torch.bool), count, seed=1000)
    labels, places = data.train.labels.clone(), torch.arange(len(mask))
    labels[mask] = (labels + 1 + places % 9)[mask] % len(CLASSES)
    return Data(Samples(data.train.inputs, labels), data.holdout, data.test), mask


def scenarios(
    train: Samples, canaries: Tensor, unseen_confidence: Callable[[], Tensor]
) -> dict[str, Scenario]:
    """Every scenario, by name; those that begin with `dev` are only for tuning.

    Args:
        canaries: (N,) bool.
        unseen_confidence: returns (N,) the probability of a sample's label under models that have
            not seen it; the lowest are the most memorised.
    """
    labels, tenth = train.labels, len(train) // 10
    plain = ~canaries
    random = choose(plain, tenth, seed=0)
    few = choose(plain, 100, seed=2)
    ten = choose(few, 10, seed=3)
    confidence = unseen_confidence().masked_fill(canaries, torch.inf)
    hardest = confidence.argsort()
    memorised, less_memorised = torch.zeros_like(canaries), torch.zeros_like(canaries)
    memorised[hardest[: tenth // 5]] = True
    less_memorised[hardest[tenth // 5 : 2 * (tenth // 5)]] = True
    part = choose(plain & (labels == DOG), tenth // 5, seed=4)
    divided = {
        f"random 10 %, part {number}": part for number, part in enumerate(split(random, 5), start=1)
    }
    held_out = _held_out(plain, canaries, labels, hardest[2 * (tenth // 5) :], tenth)
    requested = choose(random, min(tenth, SEQUENCE_SAMPLES), seed=6)

    def scenario(
        name: str,
        mask: Tensor,
        oracles: int,
        *,
        removing: bool = False,
        lacking: Tensor | None = None,
        batches: int = 1,
        parts: Mapping[str, Tensor] | None = None,
    ) -> Scenario:
        lacking = mask if lacking is None else lacking
        return Scenario(name, removing, mask, oracles, lacking, batches, parts or {})

    every = (
        scenario("dev random", choose(plain, tenth, seed=10), 2),
        scenario("dev class", labels == HORSE, 2, removing=True),
        scenario("dev part", choose(plain & (labels == SHIP), tenth // 5, seed=11), 2),
        scenario("dev memorised", less_memorised, 2),
        scenario("dev 100", choose(plain, 100, seed=12), 2),
        scenario("random 10 %", random, 5, parts=divided),
        scenario("class", labels == CAT, 3, removing=True),
        scenario("part of a class", part, 3),
        scenario("memorised", memorised, 3),
        scenario("canaries", canaries, 3),
        scenario("random 100", few, 3),
        scenario("random 10", ten, 3, lacking=few),
        scenario("random 1", choose(ten, 1, seed=5), 3, lacking=few),
        scenario("sequence", requested, 5, batches=max(int(requested.sum()) // REQUEST_SAMPLES, 2)),
        scenario(HELD_OUT, torch.stack([*held_out.values()]).any(0), 5, parts=held_out),
    )
    return {each.name: each for each in every}


def _held_out(
    plain: Tensor, canaries: Tensor, labels: Tensor, hardest: Tensor, tenth: int
) -> dict[str, Tensor]:
    """Disjoint forget sets of many kinds, a tenth of the training samples together."""
    hard = torch.zeros_like(plain)
    hard[hardest[: tenth * 3 // 20]] = True
    found = {
        "held out, hard": hard,
        "held out, canaries": choose(canaries, tenth // 20, seed=20),
        "held out, frogs": choose(plain & ~hard & (labels == FROG), tenth * 3 // 20, seed=21),
        "held out, trucks": choose(plain & ~hard & (labels == TRUCK), tenth // 10, seed=22),
    }
    for number, twentieths in enumerate((6, 2, 2, 1), start=1):
        free = plain & ~torch.stack([*found.values()]).any(0)
        found[f"held out, random {number}"] = choose(
            free, tenth * twentieths // 20, seed=22 + number
        )
    return found


def split(mask: Tensor, count: int) -> list[Tensor]:
    """Masks (N,) of `count` random disjoint parts of a mask."""
    places = mask.nonzero().squeeze(1)
    places = places[torch.randperm(len(places), generator=torch.Generator().manual_seed(8))]
    parts = []
    for chosen in places.tensor_split(count):
        part = torch.zeros_like(mask)
        part[chosen] = True
        parts.append(part)
    return parts


def choose(among: Tensor, count: int, *, seed: int) -> Tensor:
    """A mask (N,) of `count` random samples among those where `among` (N,) is true."""
    places = among.nonzero().squeeze(1)
    order = torch.randperm(len(places), generator=torch.Generator().manual_seed(seed))
    mask = torch.zeros_like(among)
    mask[places[order[:count]]] = True
    return mask
