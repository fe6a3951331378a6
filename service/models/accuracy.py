"""What is known of a model's accuracy when it is registered, and what was measured then."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from domain.tables import ModelVersion
from evidence import wording
from service.fields import In, Out


class ExpectedAccuracy(In):
    """The share of correct answers that you measured yourself, from 0 to 1. Give at least one of
    `train` and `holdout`."""

    train: Annotated[float, Field(ge=0, le=1)] | None = None
    """On all training samples as they are stored, without augmentation, with the network in
    evaluation mode."""

    holdout: Annotated[float, Field(ge=0, le=1)] | None = None
    """On all hold-out samples. Registration measures at most `policy.evaluation_samples` of them,
    drawn at random, and allows for that."""

    tolerance: Annotated[float, Field(ge=0.001, le=0.1)] = 0.01
    """How far the measured accuracy may be from yours."""

    @model_validator(mode="after")
    def _one_at_least(self) -> Self:
        if self.train is None and self.holdout is None:
            raise ValueError("give `train`, `holdout` or both")
        return self


class AccuracyRead(Out):
    """The accuracy that registration measured, and what that says about the registration."""

    train: float | None
    """The share of all training samples that the network answered correctly, from 0 to 1."""

    train_class_mean: float | None
    """The mean of that share over the classes, to which every class counts the same."""

    train_samples: int
    """How many training samples were measured."""

    holdout: float | None
    """The share of hold-out samples that it answered correctly, from 0 to 1; null if there were
    none."""

    holdout_samples: int
    """How many hold-out samples were measured."""

    chance: float
    """What `train_class_mean` is for a network that gives one answer to everything."""

    expected: ExpectedAccuracy | None
    """The accuracy that the measured one agreed with; null if none was stated."""

    accepted: bool
    """Whether `accept_accuracy` was set."""

    objections: list[Literal["no_better_than_chance", "worse_than_holdout"]]
    """What speaks against the registration and was accepted: training samples were answered
    `no_better_than_chance`, or worse than hold-out samples, by evidence (`worse_than_holdout`)."""

    remark: str | None
    """The objections in a sentence, as certificates say it; null unless `accept_accuracy` was
    set."""


def found_at_registration(version: ModelVersion | None) -> AccuracyRead | None:
    """What registration measured; None for models that an older release registered."""
    check = version.figures.get("accuracy_check") if version else None
    if check is None:
        return None
    shown = {name: check[name] for name in AccuracyRead.model_fields if name in check}
    return AccuracyRead(**shown, remark=wording.accepted_accuracy(check))
