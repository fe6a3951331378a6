"""What comes out of the routes of estimates; what goes in is a deletion request."""

from typing import Literal
from uuid import UUID

from pydantic import Field

from domain.states import JobStatus, Mode, Objective
from service.fields import Failure, Instant, Out
from service.jobs.schemas import TestRead


class Memorisation(Out):
    """How much surer of the samples a model is for having learned from them."""

    measure: Literal["confidence_gap", "loss_gap"]
    """`confidence_gap`: reference models that learned from a sample against those that did not, as
    a mean difference of log(p / (1 - p)) of its class. `loss_gap`: where there are none, the loss
    on hold-out samples of the same classes above that on the samples, in nats."""

    value: float
    """About 0 for samples that leave no trace."""


class EstimateResult(Out):
    """What a deletion request would meet at one model."""

    version: int
    """The version that was looked at."""

    samples: int
    """Training samples among the named ones that the model has not forgotten. When there are none,
    nothing was measured, and all that follows is null or empty."""

    forgotten_share: float | None = None
    """Of the training samples that the model has not forgotten."""

    mode: Mode | None = None
    """How the job would make its version, by the model's policy; null where it would fail."""

    mode_reason: str | None = None
    measured: int | None = None
    """So many of the samples were looked at, drawn in their class mix."""

    audit_has_power: bool | None = None
    """Whether the tests tell the samples from hold-out samples as things are. If not, the verdict
    can be no better than `no_power`."""

    tests: list[TestRead] = Field(default=[])
    """How far the samples stand from hold-out samples of their classes."""

    remarks: list[str] = Field(default=[])
    memorisation: Memorisation | None = None
    predicted_seconds: float | None = None
    """Of the first round of the job, once it runs; waiting and escalation come on top."""

    prediction_basis: str | None = None
    """What the prediction rests on, or why there is none."""


class EstimateTargetRead(Out):
    """What is asked of one model, and the answer."""

    model: str
    status: JobStatus
    job_id: UUID
    already_forgotten: int
    not_trained_on: int
    result: EstimateResult | None
    """Null until the job is completed."""

    failure: Failure | None


class EstimateRead(Out):
    """An estimate, and how far it is."""

    id: UUID
    status: JobStatus
    """`queued` until a worker takes it, `running` until all models are looked at; `failed` if one
    could not be."""

    objective: Objective
    exact: bool
    dataset: str
    samples: int
    """How many different ids were named."""

    duplicates: int
    created_at: Instant
    targets: list[EstimateTargetRead]
    """One for each model that would have to forget."""
