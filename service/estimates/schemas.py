"""What comes out of the routes of estimates; what goes in is a deletion request."""

from typing import Literal
from uuid import UUID

from pydantic import Field

from domain.states import JobStatus, Mode, Objective
from service.deletion_requests.schemas import ResolvedRead
from service.fields import Failure, Instant, Out
from service.jobs.schemas import TestRead


class Memorisation(Out):
    """How much more confident a model is about the samples because it learned from them."""

    measure: Literal["confidence_gap", "loss_gap"]
    """How it was measured. A `confidence_gap` compares reference models that learned from a sample
    with those that did not: the mean difference of log(p / (1 - p)), where p is the probability of
    the true class. Without reference models it is a `loss_gap`: the loss on hold-out samples of the
    same classes minus the loss on the samples, in nats."""

    value: float
    """The measured value; it is about 0 for samples that leave no trace in the model."""


class LostClass(Out):
    """A class that would be left without training samples."""

    label: int
    """The class, by its label as the model numbers classes."""

    training_samples: int
    """How many training samples of it the model has not forgotten: the request names all."""

    accuracy: float | None
    """The share of hold-out samples of the class that the model answers correctly at present, from
    0 to 1; null if there are none."""

    holdout_samples: int
    """How many hold-out samples of the class were examined."""


class EstimateResult(Out):
    """What a deletion request would find in one model, and what it would take."""

    version: int
    """The number of the version that was examined."""

    samples: int
    """How many of the named samples the model was trained on and has not forgotten. If it is 0,
    nothing was measured, and all other members but `version` are null or empty."""

    forgotten_share: float | None = None
    """The share of those samples among all training samples that the model has not forgotten, from
    0 to 1; null if nothing was measured."""

    mode: Mode | None = None
    """How the job would make its new version, by the model's policy; null if it would fail."""

    mode_reason: str | None = None
    """Why the job would make it in this way, or why it would fail; null if nothing was measured."""

    measured: int | None = None
    """How many of the samples were examined, drawn in their class mix; null if none were."""

    audit_has_power: bool | None = None
    """Whether the tests can tell the samples from hold-out samples at present. If they cannot, the
    verdict will not be better than `no_power`. Null if nothing was measured."""

    tests: list[TestRead] = Field(default=[])
    """The tests that compare the samples with hold-out samples of their classes."""

    remarks: list[str] = Field(default=[])
    """What the tests left out and why, in words."""

    lost_classes: list[LostClass] = Field(default=[])
    """The classes that would lose all of their training samples. With either objective the model
    will hardly recognise them afterwards, and a verdict does not hold that against it."""

    memorisation: Memorisation | None = None
    """How much more confident the model is because it learned from the samples; null if nothing was
    measured."""

    predicted_seconds: float | None = None
    """How long the first round of the job would take once it runs, in seconds. Waiting and
    escalation come on top. Null if there is no basis for a prediction."""

    prediction_basis: str | None = None
    """What the prediction is based on, or why there is none; null if nothing was measured."""


class EstimateTargetRead(Out):
    """What would be asked of one model, and the answer."""

    model: str
    """Name of the model that would have to forget."""

    status: JobStatus
    """Whether the examination of this model waits, runs or has ended."""

    job_id: UUID
    """The job that examines the model; follow it at `/v1/jobs/{job_id}`."""

    already_forgotten: int
    """How many of the named samples this model has already forgotten."""

    not_trained_on: int
    """How many of the named samples are outside the training split, so that the model never learned
    from them."""

    former: int = 0
    """How many of the named samples the model knows though they left the dataset, or have another
    content there, since it was trained. No job can show it these: a deletion request that names one
    waits for a version that was trained on a later state of the dataset, and what is found below
    holds for the other samples alone."""

    result: EstimateResult | None
    """What was found; null until the job is completed."""

    failure: Failure | None
    """Why the job failed; null if it did not."""


class EstimateRead(Out):
    """An estimate, and how far it is."""

    id: UUID
    """The estimate's id, used in its URL."""

    status: JobStatus
    """How far the estimate is: `queued` until a worker takes it, `running` until all models have
    been examined, `failed` if one of them could not be."""

    objective: Objective
    """What forgetting would mean."""

    exact: bool
    """Whether the models would have to be retrained without the samples."""

    dataset: str
    """Name of the dataset that the samples belong to."""

    samples: int
    """How many different samples were named, by their ids or by subjects."""

    subjects: int = 0
    """How many different subjects were named."""

    resolved: ResolvedRead | None = None
    """What was found by subjects; null if none was named."""

    duplicates: int
    """How many of the ids and subjects were repetitions and were dropped."""

    created_at: Instant
    """When the estimate was asked for."""

    targets: list[EstimateTargetRead]
    """What was found for each model that would have to forget."""
