"""Datasets, and checks of what may be trained on."""

from datetime import datetime
from typing import Any, Self
from uuid import UUID

from lethe.calls import Call
from lethe.schemas.common import OPEN_JOBS, Failure, Followed, JobStatus, Registered, Result, Word


class Columns(Result):
    """Which column of the Parquet files holds what."""

    sample_id: str
    """Stable strings, one for each sample: what deletion requests name."""

    input: str | dict[str, str | None]
    """What `kind` says; of several columns, each by the argument of the network that it is for."""

    label: str
    """Class numbers from 0."""

    split: str

    group: str | None = None
    """Whose sample it is: a person, an account or a household. Requests name people by it."""


class Splits(Result):
    """The values in the split column."""

    train: str = "train"
    holdout: str = "holdout"
    """Labelled samples never trained on: what forgotten samples are measured against."""

    test: str | None = "test"


class Erase(Result):
    """What else is deleted when samples are forgotten."""

    parquet: bool = False
    """Whether the rows of samples that every model of the dataset has forgotten are deleted from
    its files."""


class BadRows(Word):
    """Whether rows that cannot be read fail the registration, or are left out and reported."""

    REFUSE = "refuse"
    SKIP = "skip"


class LeakingGroups(Word):
    """Whether a group that stands in training and in another split is reported, or fails the
    registration."""

    REPORT = "report"
    REFUSE = "refuse"


class InputKind(Word):
    """What inputs are: image files, raw pixel values, token ids, or numbers taken as they are."""

    IMAGE = "image"
    PIXELS = "pixels"
    TOKENS = "tokens"
    FEATURES = "features"


class ClassesSource(Word):
    """Where the names of a dataset's classes are from: the registration, or the files' metadata."""

    DECLARED = "declared"
    HUGGINGFACE = "huggingface"


class Dataset(Registered):
    """A dataset, and how far its registration is."""

    uri: str
    state: int = 1
    """The number of its state that is indexed."""

    kind: InputKind | None = None
    """None if it was registered by a release that did not ask for it."""

    columns: Columns
    splits: Splits = Splits()
    input_shape: list[int] | None = None
    classes: list[str] | None = None
    """Names of the classes, in the order of the label numbers."""

    classes_source: ClassesSource | None = None

    bad_rows: BadRows = BadRows.REFUSE
    leaking_groups: LeakingGroups = LeakingGroups.REPORT
    erase: Erase = Erase()
    report: dict[str, Any] | None
    """What indexing found: rows, samples per split, labels per class, bad rows with examples,
    groups, which files were read, and what erasing rows would change about them."""

    def again(self) -> Call[Self]:
        return Call(
            method="GET", path="/v1/datasets/{name}", places={"name": self.name}, reads=type(self)
        )


class Checked(Result):
    """Which of the ids that were named may not be trained on."""

    checked: int
    """How many different ids were named."""

    suppressed: list[str]
    """Those that a model of the dataset has forgotten, in the order they were named in."""


class Lift(Result):
    """A decision that samples may be trained on again: who made it, and why."""

    id: UUID
    dataset: str
    samples: int
    still_lifted: int
    """How many of them may still be trained on: a new deletion request suppresses a sample
    again."""

    reason: str
    authorised_by: str
    lifted_by: str
    lifted_at: datetime


class Lifted(Result):
    """What came of a wish to lift suppressions."""

    lift: Lift | None
    """None if there was nothing to lift."""

    already_lifted: list[str]
    not_suppressed: list[str]
    """Ids that no model of the dataset has forgotten, or that nobody knows."""


class FileCheck(Followed):
    """A check of a Parquet file, and its answer: row numbers, no ids."""

    id: UUID
    dataset: str
    status: JobStatus
    job_id: UUID
    uri: str
    column: str
    rows: int | None
    """How many the file has; this and what follows is null until the check is completed."""

    suppressed: int | None
    """How many of them may not be trained on."""

    positions: list[int] | None
    """Their row numbers from 0, over all files in the order of their names; the first 100,000."""

    failure: Failure | None
    created_at: datetime

    def again(self) -> Call[Self]:
        return Call(
            method="GET",
            path="/v1/datasets/{name}/checks/{check_id}",
            places={"name": self.dataset, "check_id": self.id},
            reads=type(self),
        )

    @property
    def is_settled(self) -> bool:
        return self.status not in OPEN_JOBS

    def job_ids(self) -> list[UUID]:
        return [self.job_id]
