"""What goes into and comes out of the routes of datasets."""

from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import (
    ConfigDict,
    Discriminator,
    FailFast,
    Field,
    StringConstraints,
    Tag,
    model_validator,
)

from domain.preprocessing import InputKind
from domain.states import JobStatus, RegistrationStatus
from service.fields import (
    ClassNames,
    Failure,
    In,
    Instant,
    Label,
    Name,
    Out,
    Registered,
    SampleId,
    Uri,
)

Arguments = Annotated[
    dict[Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,62}$")], Label | None],
    Field(min_length=1, max_length=16),
]


class Columns(In):
    """The names of the columns in the Parquet files."""

    sample_id: Label
    """The column with the sample ids: strings that are unique and never change. Deletion requests
    name samples by them."""

    input: Label | Arguments
    """The column with the inputs, which are what `kind` says. A network that takes several
    sequences gets them by name: an object from its arguments to their columns, such as
    `{"input_ids": "ids", "token_type_ids": "types"}`. Null instead of a column leaves that column
    of the file out on purpose."""

    label: Label
    """The column with the labels: class numbers, counted from 0, or the names in `classes`."""

    split: Label
    """The column that says which split a sample belongs to; `splits` names its values."""

    group: Label | None = None
    """The column with whose sample it is: a person, an account or a household. Text or an integer,
    null for a sample that is nobody else's. Deletion requests name people by it, and samples of one
    person are judged together. It is kept as a keyed digest, never in clear. Null if there is no
    such column."""

    @model_validator(mode="after")
    def _group_is_no_other(self) -> Self:
        inputs = [self.input] if isinstance(self.input, str) else [*self.input.values()]
        if self.group is not None and self.group in (self.label, self.split, *inputs):
            raise ValueError(
                "`group` names whose sample it is, so it is another column than `input`, `label` "
                "and `split`"
            )
        return self


class Splits(In):
    """The values in the split column, and what each of them stands for."""

    train: Label = "train"
    """The value that marks training samples, the only ones a model can be asked to forget."""

    holdout: Label = "holdout"
    """The value that marks hold-out samples: labelled, never trained on. Forgotten samples are
    compared with them, so there must be some."""

    test: Label | None = "test"
    """The value that marks test samples, on which accuracy is measured; null if there are none."""

    @model_validator(mode="after")
    def _differ(self) -> Self:
        if len({self.train, self.holdout, self.test}) < 3:
            raise ValueError("give each split a different value")
        return self


class Erase(In):
    """What else is deleted when samples are forgotten."""

    parquet: bool = False
    """Whether to delete a sample's row from the files once every model of the dataset has forgotten
    it. The worker then needs write access to their directory. The registration rehearses it, and
    fails if rows could not be taken out of the files."""


class DatasetDefinition(In):
    """How the files of a dataset are to be read."""

    columns: Columns
    """Which columns of the Parquet files hold the ids, inputs, labels and splits."""

    splits: Splits = Splits()
    """How the split column marks training, hold-out and test samples."""

    input_shape: Annotated[
        list[Annotated[int, Field(ge=1, le=2**20)]] | None, Field(min_length=1, max_length=8)
    ] = None
    """The shape of one input, such as `[3, 32, 32]`. `pixels` need it; without it, `tokens` and
    `features` are flat and all as long as the first. Null for `image`."""

    classes: ClassNames | None = None
    """The names of the classes, in the order of the label numbers that models were trained with.
    Labels that are text need it. Without it, the names of a ClassLabel column are read from the
    files, if Hugging Face's `datasets` wrote them. Models must have the same names."""

    bad_rows: Literal["refuse", "skip"] = "refuse"
    """What to do with rows that cannot be read: `refuse` fails the registration, `skip` leaves them
    out and reports them."""

    leaking_groups: Literal["report", "refuse"] = "report"
    """What to do when a group stands in training and also in the hold-out or the test split:
    `report` counts them in the report, and jobs leave such hold-out samples out of the audit;
    `refuse` fails the registration. Needs `columns.group`."""

    erase: Erase = Erase()
    """What else to delete when samples are forgotten."""


class DatasetCreate(DatasetDefinition):
    """A dataset to index."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "name": "cifar10",
                    "uri": "file:///data/cifar10",
                    "kind": "image",
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
    """A unique name for the dataset, used in URLs: lower-case letters, digits, `.`, `_` and `-`."""

    uri: Uri
    """The path or `file:` URI of a Parquet file, or of a directory of them. It must lie inside one
    of the directories in LETHE_DATA_ROOTS. A directory is read at any depth, but for names that
    begin with `.` or `_`; folders such as `split=train` are columns."""

    kind: InputKind
    """What the inputs are: `image` for encoded image files, `pixels` for arrays of raw pixel
    values, `tokens` for token ids, or `features` for numbers that the network takes as they are.
    It decides how they are prepared, and is never guessed."""

    @model_validator(mode="after")
    def _fits_kind(self) -> Self:
        if self.kind is InputKind.IMAGE and self.input_shape is not None:
            raise ValueError("image files have a size of their own; leave `input_shape` out")
        if self.kind is InputKind.PIXELS and self.input_shape is None:
            raise ValueError("`pixels` need an `input_shape`, such as [3, 32, 32]")
        if not isinstance(self.columns.input, str):
            if self.kind is not InputKind.TOKENS:
                raise ValueError("only `tokens` can have inputs of several columns")
            if not any(self.columns.input.values()):
                raise ValueError("name at least one column in `columns.input`")
        if self.columns.group is None and self.leaking_groups == "refuse":
            raise ValueError("`leaking_groups` needs a column `columns.group`")
        return self

    def definition(self) -> dict[str, Any]:
        """What is stored of it besides name and place; of `erase`, what was asked for."""
        stored = self.model_dump(mode="json", exclude={"name", "uri"})
        if not self.erase.parquet:
            del stored["erase"]  # as it was before there was one: a repetition is the same dataset
        if self.classes is None:
            del stored["classes"]
        if self.columns.group is None:
            del stored["columns"]["group"]
        if self.leaking_groups == "report":
            del stored["leaking_groups"]
        return stored


class CheckIds(In):
    """Ids of samples that you want to train on."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"sample_ids": ["img-00017"]}]})

    # FailFast: a body of wrong ids is one error, not a million.
    sample_ids: Annotated[list[SampleId], Field(min_length=1), FailFast()]
    """The ids to check, at most 100,000 unless the service is configured otherwise. They need not
    be in the dataset."""


class CheckFile(In):
    """A Parquet file that you want to train on."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"uri": "file:///data/run-7.parquet", "column": "id"}]}
    )

    uri: Uri
    """The path or `file:` URI of a Parquet file, or of a directory of them. It must lie inside one
    of the directories in LETHE_DATA_ROOTS."""

    column: Label = "sample_id"
    """The name of the column with the sample ids."""


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
    """Which of the ids may not be trained on."""

    checked: int
    """How many different ids were checked."""

    suppressed: list[str]
    """The ids that may not be trained on, because a model of the dataset has forgotten them. They
    are in the order in which they were sent."""


class CheckRead(Out):
    """A check of a Parquet file and its answer, which names rows by number and contains no ids."""

    id: UUID
    """The check's id, used in its URL."""

    dataset: str
    """Name of the dataset whose models may have forgotten samples of the file."""

    status: JobStatus
    """Whether the check waits, runs or has ended."""

    job_id: UUID
    """The job that reads the file; follow it at `/v1/jobs/{job_id}`."""

    uri: str
    """The file that is checked, as it was given."""

    column: str
    """The name of the column with the sample ids."""

    rows: int | None
    """How many rows the file has; null until the check is completed."""

    suppressed: int | None
    """How many rows may not be trained on, because a model of the dataset has forgotten their
    samples. Rows without an id are not counted. Null until the check is completed."""

    positions: list[int] | None
    """The numbers of those rows, counted from 0, in ascending order. If there are several files,
    rows are counted over all of them in the order of their names. At most the first 100,000 are
    listed. Null until the check is completed."""

    failure: Failure | None
    """Why the check failed; null if it did not."""

    created_at: Instant
    """When the check was asked for."""


class DatasetRead(DatasetDefinition, Registered):
    """A dataset, and how far its registration is."""

    model_config = ConfigDict(extra="ignore")

    uri: str
    """Where the dataset's files are, as it was given."""

    kind: InputKind | None = None
    """What the inputs are. Null if an older release registered the dataset: then it still follows
    from the type of the column, as it did there."""

    status: RegistrationStatus
    """Whether the dataset can be used: models can be registered once it is `ready`."""

    state: int = 1
    """The number of its state that is indexed: 1 until another one is registered."""

    classes: list[str] | None = None
    """The names of the classes, in the order of the label numbers; null if they are not known."""

    classes_source: Literal["declared", "huggingface"] | None = None
    """Where the names are from: `declared`, or the metadata that Hugging Face's `datasets` wrote
    into the files; null if they are not known."""

    report: dict[str, Any] | None
    """What indexing found: rows, samples per split, labels per class, bad rows with examples,
    groups and how many of them stand both in training and in another split, the type of array
    inputs, how many images can be read in several ways, by kind (a model's `preprocessing` must
    choose how), the files that were read and left out, and what erasing rows would change about
    them. Null until the dataset has been indexed."""
