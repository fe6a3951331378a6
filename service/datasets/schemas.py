"""What goes into and comes out of the routes of datasets."""

from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import ConfigDict, Discriminator, FailFast, Field, Tag, model_validator

from domain.states import JobStatus, RegistrationStatus
from service.fields import Failure, In, Instant, Label, Name, Out, Registered, SampleId, Uri


class Columns(In):
    """Which column of the Parquet files holds what."""

    sample_id: Label
    """Stable strings, one for each sample: what deletion requests name."""

    input: Label
    """Encoded images, or arrays of `input_shape`."""

    label: Label
    """Class numbers from 0."""

    split: Label
    """Which split a sample belongs to; see `splits`."""


class Splits(In):
    """The values in the split column."""

    train: Label = "train"
    holdout: Label = "holdout"
    """Labelled samples never trained on: what forgotten samples are measured against."""

    test: Label | None = "test"

    @model_validator(mode="after")
    def _differ(self) -> Self:
        if len({self.train, self.holdout, self.test}) < 3:
            raise ValueError("the splits need different names")
        return self


class Erase(In):
    """What else is deleted when samples are forgotten."""

    parquet: bool = False
    """Whether the rows of samples that every model of the dataset has forgotten are deleted from
    its files. The worker needs the right to write to their directory."""


class DatasetDefinition(In):
    """How the files of a dataset are to be read."""

    columns: Columns
    splits: Splits = Splits()
    input_shape: Annotated[
        list[Annotated[int, Field(ge=1, le=2**20)]] | None, Field(min_length=1, max_length=8)
    ] = None
    """Shape of one input, when they are arrays; null when they are encoded images."""

    bad_rows: Literal["refuse", "skip"] = "refuse"
    """Whether rows that cannot be read fail the registration, or are left out and reported."""

    erase: Erase = Erase()


class DatasetCreate(DatasetDefinition):
    """A dataset to index."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "name": "cifar10",
                    "uri": "file:///data/cifar10",
                    "columns": {
                        "sample_id": "id",
                        "input": "image",
                        "label": "label",
                        "split": "split",
                    },
                    "splits": {"train": "train", "holdout": "holdout", "test": "test"},
                }
            ]
        }
    )

    name: Name
    uri: Uri
    """A Parquet file, or a directory of them, inside the allowed directories."""

    def definition(self) -> dict[str, Any]:
        """What is stored of it besides name and place; of `erase`, what was asked for."""
        stored = self.model_dump(mode="json", exclude={"name", "uri"})
        if not self.erase.parquet:
            del stored["erase"]  # as it was before there was one: a repetition is the same dataset
        return stored


class CheckIds(In):
    """Ids of samples that are to be trained on."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"sample_ids": ["img-00017"]}]})

    # FailFast: a body of wrong ids is one error, not a million.
    sample_ids: Annotated[list[SampleId], Field(min_length=1), FailFast()]
    """At most 100,000 unless configured otherwise; they need not be in the dataset."""


class CheckFile(In):
    """A Parquet file that is to be trained on."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"uri": "file:///data/run-7.parquet", "column": "id"}]}
    )

    uri: Uri
    """The file, or a directory of them, inside the allowed directories."""

    column: Label = "sample_id"
    """Which column has the sample ids."""


def _form(body: object) -> str | None:
    """Which of the two is meant, by its member; none where both are there, or neither."""
    forms = [form for form in ("sample_ids", "uri") if isinstance(body, dict) and form in body]
    return forms[0] if len(forms) == 1 else None


Check = Annotated[
    Annotated[CheckIds, Tag("sample_ids")] | Annotated[CheckFile, Tag("uri")],
    Discriminator(
        _form,
        custom_error_type="check_form",
        custom_error_message="Give exactly one of `sample_ids` and `uri`: "
        "a list of ids, or a Parquet file that has them",
    ),
]


class Checked(Out):
    """Which of them may not be trained on."""

    checked: int
    """How many different ids were named."""

    suppressed: list[str]
    """Those that a model trained on the dataset has forgotten, in the order they were named in."""


class CheckRead(Out):
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
    """How many of them may not be trained on: a model of the dataset has forgotten their samples.
    Rows without an id are not among them."""

    positions: list[int] | None
    """Their row numbers, counted from 0, in order; over all files in the order of their names, if
    they are several. At most the first 100,000."""

    failure: Failure | None
    created_at: Instant


class DatasetRead(DatasetDefinition, Registered):
    """A dataset, and how far it is."""

    model_config = ConfigDict(extra="ignore")

    uri: str
    status: RegistrationStatus
    report: dict[str, Any] | None
    """What indexing found: rows, samples per split, labels per class, bad rows with examples."""
