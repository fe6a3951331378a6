"""What the owner of a model allows its jobs to do: the one place of these limits' defaults.

Stored as JSON with the model; the worker reads it back through `Policy.model_validate`.
"""

from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0, le=1)]


class Escalation(StrEnum):
    """What a job may try after a verdict of `fail`.

    - `more_cycles`: unlearn again from the same version, with more cycles.
    - `stronger`: unlearn again with a stronger setting.
    - `retrain`: train without the samples; skipped if the model has no `recipe`.
    """

    MORE_CYCLES = "more_cycles"
    STRONGER = "stronger"
    RETRAIN = "retrain"


class _Limits(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )


class DriftLimits(_Limits):
    """How far approximate versions may drift from the last version that was trained."""

    max_forgotten_share: Share = 0.3
    """The largest share of the samples used in that training that may have been forgotten since,
    from 0 to 1."""

    max_accuracy_drop: Share = 0.05
    """The largest drop in test accuracy since that training, as a fraction from 0 to 1."""


class Batching(_Limits):
    """How requests that wait for the same model are combined into jobs."""

    # Without a window none is stored and shown: clients of earlier releases cannot read a null.
    window: Annotated[timedelta, Field(ge=timedelta(0), le=timedelta(days=7))] | None = Field(
        default=None, exclude_if=lambda window: window is None
    )
    """How long a request is held back so that others can join it, as an ISO 8601 duration such as
    `PT10M`, at most seven days; `PT0S` for no longer than until the next job can begin. If it is
    left out, a request is held back for a quarter of the time until its due date, at most seven
    days, and the model's policy shows no window. None is held back that is `urgent` or within three
    days of its due date, or once a job would be full. Those that wait for the same model and
    objective go together, with the first."""

    max_samples: Annotated[int, Field(ge=1, le=10_000_000)] = 10_000
    """The most samples that the requests of one job may name together. A job takes the requests
    that are due first, and always at least one. One that retrains the model takes all that wait."""


class Policy(_Limits):
    """How much data is kept for jobs, how they are judged, and what follows from a verdict."""

    reservoir_samples: Annotated[int, Field(ge=1, le=10_000_000)] = 10_000
    """How many training samples are kept for the recover phase of jobs, balanced over the
    classes."""

    evaluation_samples: Annotated[int, Field(ge=1, le=10_000_000)] = 10_000
    """The largest number of samples of each split that are measured before and after a job."""

    max_test_accuracy_drop: Share = 0.03
    """The largest acceptable drop in test accuracy, as a fraction from 0 to 1. The verdict is
    `fail` if there is statistical evidence of a larger drop."""

    max_class_accuracy_drop: Share = 0.10
    """The largest acceptable drop in accuracy on the retain samples of any one class, as a fraction
    from 0 to 1. The verdict is `fail` if there is statistical evidence of a larger drop."""

    max_nll_increase: Annotated[float, Field(ge=0, le=100)] = 0.5
    """The largest acceptable rise of the mean loss on test samples of retained classes (NLL), in
    nats. The verdict is `fail` if there is statistical evidence of a larger rise."""

    max_ece_increase: Share = 0.1
    """The largest acceptable rise of the calibration error on test samples of retained classes
    (ECE), as a fraction from 0 to 1: how far the model's confidence is from its accuracy. The
    verdict is `fail` if there is statistical evidence of a larger rise."""

    escalation: Annotated[list[Escalation], Field(max_length=3)] = list(Escalation)
    """What is tried after a verdict of `fail`, in this order. If nothing helps, a person decides;
    with an empty list, a person decides at once."""

    mode: Literal["auto", "approximate", "exact"] = "auto"
    """How a job makes its version. With `exact` it always retrains the model, which needs a
    `recipe`. With `approximate` it changes the model. With `auto` it retrains it if, by what was
    measured, that takes no longer than changing it and ends before the earliest due date. Whatever
    this says, a job retrains the model for a request with `exact` and where the limits that follow
    or `escalation` ask for it."""

    max_forget_share: Share = 0.5
    """The largest share of the training samples that a job forgets by changing the model, from 0 to
    1. To forget more, the job retrains it."""

    drift: DriftLimits = DriftLimits()
    """How far approximate versions may drift from the last version that was trained. A job that
    would go further retrains the model if it has a `recipe`."""

    batch: Batching = Batching()
    """Which requests share a job, and how long they may be held back for each other."""

    grace: Annotated[timedelta, Field(ge=timedelta(0), le=timedelta(days=365))] = timedelta(
        hours=72
    )
    """How long the files of a superseded version are kept before they are deleted, as an ISO 8601
    duration such as `PT72H`, at most a year. Until then a person can examine them, but they are
    never served or used as the base of another version."""

    reference_models: Annotated[int, Field(ge=0, le=64, multiple_of=2)] = 0
    """How many reference models are trained when the model is registered: an even number up to 64,
    or 0 for none. Each is trained on half of the training samples, to learn how a network answers
    that never saw a sample. Jobs then have better targets, and the audit can test each sample."""

    group: Literal["column", "near_duplicates"] = "column"
    """Which samples belong together, so that reference models learn from all of them or none and
    audits compare them as one: those with the same value in the dataset's `group` column, or, with
    `near_duplicates`, also samples without a value there that registration found to be nearly the
    same, such as bursts of photos or overlapping windows. It cannot be changed afterwards."""

    fine_tuned_steps: Annotated[int, Field(ge=0, le=10_000)] = 0
    """For how many steps a copy of each new version is trained further on retain samples, to see
    whether membership comes back; 0 for none. The copy is thrown away, and no verdict hangs on it.
    A step costs as much as a step of training, and the copy as much memory as the model, so it is
    off unless it is asked for."""

    pooled_audit_days: Annotated[int, Field(ge=0, le=3650)] = 90
    """For how many days it is kept what jobs measured of each forgotten group or sample, to be
    judged together whenever a version is made; no ids are kept. 0 for none."""
