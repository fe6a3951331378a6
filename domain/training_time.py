"""How long a retraining of a model takes, as far as that was measured: kept with the model.

`Model.timings` has it by the device that it was measured on. Pure.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


class Measured(StrEnum):
    """What a figure rests on, from the poorest to the best.

    - `steps`: a few steps of training, times those that the recipe takes.
    - `reference_models`: what the reference models took, each on half of the samples.
    - `retraining`: the last retraining.
    """

    STEPS = "steps"
    REFERENCE_MODELS = "reference_models"
    RETRAINING = "retraining"


@dataclass(frozen=True, slots=True)
class TrainingTime:
    """What reading the samples, training on them and measuring them takes."""

    measured: Measured
    seconds: float
    samples: int
    """So many training samples these seconds are for; 0 if nobody knows."""

    passes: float | None = None
    """Over the data, where steps were timed."""

    assumed: bool = False
    """Whether nobody said how many passes the recipe makes."""

    def on(self, samples: int) -> float:
        """Seconds for another number of samples: in proportion to it."""
        return self.seconds * samples / self.samples if self.samples else self.seconds

    @property
    def basis(self) -> str:
        """What it rests on, as the end of "…, judged by"."""
        if self.measured is Measured.RETRAINING:
            return "the last retraining"
        if self.measured is Measured.REFERENCE_MODELS:
            return "the training of reference models on halves of the samples"
        passes = f"{self.passes or 0:g} passes over the data"
        if self.assumed:
            passes = f"an assumed {passes}, because the recipe does not say how many it makes"
        return f"a few training steps timed at registration, for {passes}"


def of_device(timings: Mapping[str, Any] | None, device: str) -> TrainingTime | None:
    """What is known of this kind of device."""
    found = ((timings or {}).get(device) or {}).get("retraining")
    if found is None:
        return None
    return TrainingTime(**{**found, "measured": Measured(found["measured"])})


def noted(timings: Mapping[str, Any] | None, device: str, found: TrainingTime) -> dict[str, Any]:
    """The timings with this one, unless there is one of the device that rests on more."""
    order = list(Measured)
    known = of_device(timings, device)
    if known is not None and order.index(known.measured) > order.index(found.measured):
        return dict(timings or {})
    of_this = {**((timings or {}).get(device) or {}), "retraining": asdict(found)}
    return {**(timings or {}), device: of_this}
