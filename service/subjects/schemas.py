"""What goes into and comes out of the look-up of subjects."""

from typing import Annotated
from uuid import UUID

from pydantic import ConfigDict, Field

from domain.states import DerivedKind, RegistrationStatus, VersionStatus
from service.fields import In, Instant, Name, Out, Subject


class LookupCreate(In):
    """The subjects of whom somebody wants to know what is there."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"subjects": ["customer-4711"]},
                {"subjects": [17, 18], "dataset": "gait"},
            ]
        }
    )

    subjects: Annotated[list[Subject], Field(min_length=1, fail_fast=True)]
    """The people, accounts or households to look for, as the `group` column of datasets names them:
    text or integers. At most as many as a deletion request may name."""

    dataset: Name | None = None
    """The name of the only dataset to look into; all that have groups, if left out."""


class SplitCounts(Out):
    """How many samples there are in each split."""

    train: int
    """How many samples are training samples."""

    holdout: int
    """How many samples are hold-out samples, which no model was trained on."""

    test: int
    """How many samples are test samples, which no model was trained on."""


class HolderRead(Out):
    """Something that may still hold samples of the subjects, or what was learned from them."""

    kind: DerivedKind
    """What it is that may hold them."""

    version: int | None
    """The number of the version that it belongs to; null if it belongs to none."""

    status: VersionStatus | None
    """What becomes of that version; null if it belongs to none."""

    purge_after: Instant | None
    """When its file is to be deleted; null if it stays."""


class ModelLookedUp(Out):
    """What a model has of the subjects."""

    model: str
    """Name of the model."""

    status: RegistrationStatus
    """How far its registration is: only a model that is `ready` can be asked to forget."""

    already_forgotten: int
    """How many of the samples the model has forgotten already."""

    left: int
    """How many of its training samples a deletion request would make it forget."""

    held_by: list[HolderRead]
    """What may still hold samples or what was learned from them, newest version first. Files of
    versions that were replaced are among them until they are deleted."""


class DatasetLookedUp(Out):
    """What a dataset and its models have of the subjects."""

    dataset: str
    """Name of the dataset."""

    indexed_at: Instant | None
    """When the dataset's files were read into the index; null if that was not recorded."""

    subjects: int
    """How many of the subjects have samples in the index."""

    samples: SplitCounts
    """How many samples they have."""

    models: list[ModelLookedUp]
    """What was made of the samples by each model of the dataset; empty if there are none."""


class LookupRead(Out):
    """What there is of the subjects. Nothing was changed; the audit trail is told of counts."""

    id: UUID
    """The id by which the audit trail mentions the look-up."""

    subjects: int
    """How many different subjects were looked up."""

    duplicates: int
    """How many of them were repetitions and were dropped."""

    unknown_count: int
    """How many subjects have no sample in any of the datasets."""

    unknown_positions: list[int]
    """Where the first 100 of those stand in `subjects`, counted from 0."""

    datasets: list[DatasetLookedUp]
    """What was found in each dataset that was looked into and has samples of them."""

    without: list[str]
    """Names of the datasets that were looked into and have no sample of them."""

    not_looked_into: list[str]
    """Names of the datasets in which nobody can be looked up: they have no `group` column, or are
    not indexed yet. Their samples may be anybody's."""
