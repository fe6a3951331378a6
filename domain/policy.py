"""What the owner of a model allows its jobs to do: the one place of these limits' defaults.

Stored as JSON with the model; the worker reads it back through `Policy.model_validate`.
"""

from datetime import timedelta
from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0, le=1)]


class Escalation(StrEnum):
    """What a job may try after a verdict of `fail`."""

    MORE_CYCLES = "more_cycles"
    STRONGER = "stronger"
    RETRAIN = "retrain"


class _Limits(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )


class DriftLimits(_Limits):
    """How far approximate versions may lead away from the last exact training."""

    max_forgotten_share: Share = 0.3
    """Of the samples of that training."""

    max_accuracy_drop: Share = 0.05
    """Of the test accuracy, added up over the versions since."""


class Batching(_Limits):
    """How requests that wait for one model are put together into jobs."""

    window: Annotated[timedelta, Field(ge=timedelta(0), le=timedelta(days=7))] = timedelta(0)
    """How long a request may wait for others, where more than one waits: `PT10M` for ten minutes.
    One that waits alone, or is close to its due date, is not held back."""

    max_samples: Annotated[int, Field(ge=1, le=10_000_000)] = 10_000
    """A job takes requests, the earliest due first, as long as they name no more than this
    together; at least one."""


class Policy(_Limits):
    """How much is kept for jobs, how they are judged, and what follows from a verdict."""

    reservoir_samples: Annotated[int, Field(ge=1, le=10_000_000)] = 10_000
    """Retain samples kept for the recover phase, balanced over the classes."""

    evaluation_samples: Annotated[int, Field(ge=1, le=10_000_000)] = 10_000
    """At most this many samples of each split are measured before and after a job."""

    max_test_accuracy_drop: Share = 0.03
    """A verdict is `fail` when the test accuracy fell by more, by all evidence."""

    max_class_accuracy_drop: Share = 0.10
    """The same for the retain samples of the class that lost most."""

    escalation: Annotated[list[Escalation], Field(max_length=3)] = list(Escalation)
    """What is tried, in this order, after a verdict of `fail`: a run with more cycles, one with a
    stronger setting, a training without the samples (skipped where the model has no `recipe`).
    Then a person decides."""

    max_forget_share: Share = 0.5
    """A job that is to forget a larger share of the training samples retrains the model."""

    drift: DriftLimits = DriftLimits()
    """A job that would go beyond retrains the model, if it has a `recipe`."""

    batch: Batching = Batching()
    """Which requests share a job."""

    grace: Annotated[timedelta, Field(ge=timedelta(0), le=timedelta(days=365))] = timedelta(
        hours=72
    )
    """How long after a version was superseded its files are deleted, as in `PT72H`: until then a
    person can look at them. They are never served, nor a base of anything."""

    reference_models: Annotated[int, Field(ge=0, le=64, multiple_of=2)] = 0
    """So many networks are trained on halves of the training samples, when the model is registered,
    to learn what networks answer that never saw a sample. Jobs then have exact targets, and the
    audit a test for each sample. An even number; 0 for none."""
