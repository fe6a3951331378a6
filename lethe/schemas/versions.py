"""Versions of models: immutable weights."""

from datetime import datetime
from typing import Any
from uuid import UUID

from lethe.schemas.common import Mode, Result, Word


class VersionStatus(Word):
    """Whether a version is the one to serve, might become it, or holds forgotten data."""

    CANDIDATE = "candidate"
    CHAMPION = "champion"
    SUPERSEDED = "superseded"


class Accepted(Word):
    """What may be objected to weights that were trained elsewhere."""

    NO_BETTER_THAN_CHANCE = "no_better_than_chance"
    WORSE_THAN_HOLDOUT = "worse_than_holdout"
    MEMORY = "memory"
    """They can tell what they were declared not to be trained on."""


class Declared(Result):
    """What was declared of the training of a version."""

    trained_on: int
    """Samples of the dataset's training split."""

    trained_on_sha256: str
    left_out: int
    """Samples of that split that it was trained without; they count as forgotten since."""

    accepted: list[Accepted]
    """What was objected to it, and had been accepted beforehand."""


class Version(Result):
    """Immutable weights of a model."""

    number: int
    status: VersionStatus
    mode: Mode
    parent: int | None
    """Number of the version it was made from."""

    weights_sha256: str
    job_id: UUID
    declared: Declared | None = None
    """What was declared of its training, if it was trained elsewhere."""

    figures: dict[str, Any]
    """Accuracies, feature size and sample counts measured when it was made."""

    created_at: datetime
    superseded_at: datetime | None
    purge_after: datetime | None
    purged_at: datetime | None
    """When its files were deleted, and the store was listed to see that they are gone."""
