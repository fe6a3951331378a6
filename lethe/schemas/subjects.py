"""What datasets and models have of subjects: of people, accounts or households."""

from datetime import datetime
from uuid import UUID

from lethe.schemas.common import RegistrationStatus, Result
from lethe.schemas.models import DerivedKind
from lethe.schemas.versions import VersionStatus


class SplitCounts(Result):
    """How many samples there are in each split."""

    train: int
    holdout: int
    test: int


class Holder(Result):
    """Something that may still hold the samples, or what was learned from them."""

    kind: DerivedKind
    version: int | None
    status: VersionStatus | None
    purge_after: datetime | None


class ModelLookedUp(Result):
    """What a model has of the subjects."""

    model: str
    status: RegistrationStatus
    already_forgotten: int
    left: int
    """Training samples that a deletion request would make it forget."""

    held_by: list[Holder]


class DatasetLookedUp(Result):
    """What a dataset and its models have of the subjects."""

    dataset: str
    indexed_at: datetime | None
    subjects: int
    samples: SplitCounts
    models: list[ModelLookedUp]


class Lookup(Result):
    """What there is of the subjects; nothing was changed."""

    id: UUID
    subjects: int
    duplicates: int
    unknown_count: int
    unknown_positions: list[int]
    """Where the first 100 of them stand in the list that was sent."""

    datasets: list[DatasetLookedUp]
    without: list[str]
    """Datasets that were looked into and have no sample of them."""

    not_looked_into: list[str]
    """Datasets without groups, or not indexed yet: their samples may be anybody's."""
