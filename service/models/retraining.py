"""What a retraining of a model takes, as far as that was measured."""

from domain import training_time
from domain.tables import Model
from domain.training_time import Measured
from service.fields import Out


class RetrainingRead(Out):
    """What a retraining takes on one kind of device. By this, and by what its jobs took, a model
    whose policy has the `mode` `auto` is changed or retrained."""

    device: str
    """The kind of device: `cpu`, or the name of a GPU."""

    retraining_seconds: float
    """How long it takes to read the training samples, train on them and measure the outcome, in
    seconds. Jobs look at the model before and after that."""

    measured: Measured
    """What this rests on: `retraining` is the last real one, `reference_models` the training of
    reference models on halves of the samples, and `steps` a few training steps at registration,
    times those of the recipe. A better figure replaces a poorer one."""

    samples: int
    """How many training samples this is for; another number takes time in proportion."""

    passes: float | None
    """With `steps`, for how many passes over the data this is; else null."""

    assumed: bool
    """With `steps`, whether the passes are assumed, because the recipe's attribute `passes` does
    not say how many it makes."""


def read(model: Model) -> list[RetrainingRead]:
    """What is known of a model, by the names of devices."""
    found = {name: training_time.of_device(model.timings, name) for name in model.timings or {}}
    return [
        RetrainingRead(
            device=name,
            retraining_seconds=time.seconds,
            measured=time.measured,
            samples=time.samples,
            passes=time.passes,
            assumed=time.assumed,
        )
        for name, time in sorted(found.items())
        if time is not None
    ]
