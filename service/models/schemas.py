"""What goes into and comes out of the routes of models (neural networks)."""

from math import isfinite
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import AfterValidator, ConfigDict, Field, JsonValue, model_validator

from domain.policy import DriftLimits, Policy
from domain.states import DerivedKind, Mode, RegistrationStatus, VersionStatus
from service.fields import In, Instant, Label, Name, Out, Registered, Uri


def _storable(value: JsonValue) -> JsonValue:
    """Refuse what Python's JSON has and Postgres' has not."""
    if isinstance(value, float) and not isfinite(value):
        raise ValueError("numbers are finite")
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ValueError("text is valid Unicode") from None
        if "\0" in value:
            raise ValueError("text has no NUL character")
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for part in (*(value if isinstance(value, dict) else ()), *parts):
        _storable(part)
    return value


FunctionName = Annotated[
    str, Field(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$", max_length=255)
]


class PythonArchitecture(In):
    """A function of an allowed module builds the network."""

    kind: Literal["python"]
    factory: FunctionName
    """`package.module:function`; it returns a `torch.nn.Module`."""

    arguments: Annotated[dict[str, JsonValue], AfterValidator(_storable)] = Field(default={})
    """Keyword arguments of the function."""


class TransformersArchitecture(In):
    """`config.json` beside the weights says which image or sequence classifier it is."""

    kind: Literal["transformers"]


class Preprocessing(In):
    """From a stored image to the network's input: `(image * scale - mean) / std`."""

    resize: tuple[Annotated[int, Field(ge=1, le=8192)], Annotated[int, Field(ge=1, le=8192)]] | (
        None
    ) = None
    """Height and width; null when all images have one size."""

    mode: Literal["RGB", "L"] = "RGB"
    """Colour, or grey."""

    scale: Annotated[float, Field(gt=0)] | None = None
    """Null stands for 1/255 where inputs are bytes (images), and for 1 where they are floats."""

    mean: list[float] = Field(default=[0.0], min_length=1, max_length=64)
    """One number, or one for each channel."""

    std: list[Annotated[float, Field(gt=0)]] = Field(default=[1.0], min_length=1, max_length=64)

    @model_validator(mode="after")
    def _one_for_each_channel(self) -> Self:
        if len(self.mean) != len(self.std):
            raise ValueError("mean and std need the same length")
        return self


class _Definition(In):
    weights: Uri
    """A `.safetensors` file; for `transformers` the directory of `model.safetensors`."""

    architecture: Annotated[
        PythonArchitecture | TransformersArchitecture, Field(discriminator="kind")
    ]
    head: Label
    """Name of the module whose input are the features: the classification head."""

    preprocessing: Preprocessing = Preprocessing()
    recipe: FunctionName | None = None
    """`package.module:function` of an allowed module that trains the network anew; without one the
    model cannot be retrained."""

    policy: Policy = Policy()


class ModelCreate(_Definition):
    """A trained classifier to register."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "name": "cifar10-cnn",
                    "dataset": "cifar10",
                    "weights": "file:///data/cifar10-cnn.safetensors",
                    "architecture": {
                        "kind": "python",
                        "factory": "my_models.cnn:build",
                        "arguments": {"classes": 10},
                    },
                    "head": "classifier",
                    "preprocessing": {"mean": [0.49, 0.48, 0.45], "std": [0.25, 0.24, 0.26]},
                }
            ]
        }
    )

    name: Name
    dataset: Name
    """What it was trained on; its status must be `ready`."""


class VersionRead(Out):
    """Immutable weights of a model."""

    number: int
    status: VersionStatus
    """`champion` is the one to serve; a `candidate` waits for a person's decision; `superseded`
    ones are never served again, as they hold forgotten data."""

    mode: Mode
    """`exact`: trained without the samples; `approximate`: made to forget them."""

    parent: int | None
    """Number of the version it was made from."""

    weights_sha256: str
    job_id: UUID
    """The job that made it."""

    figures: dict[str, Any]
    """Accuracies, feature size and sample counts measured when it was made."""

    created_at: Instant
    superseded_at: Instant | None
    purge_after: Instant | None
    """When its files are to be deleted: its model's `grace` after it was superseded."""

    purged_at: Instant | None
    """When its files were deleted, and the store was listed to see that they are gone."""


class DerivedRead(Out):
    """Something that was made from data."""

    kind: DerivedKind
    """`weights`, `statistics` and `reservoir` are files of a version; a `checkpoint` is of a job
    that runs; the two tables are what reference models left; `source_weights` lie where the model
    was registered from, and are not the service's to delete."""

    name: str
    """The SHA-256 of a file, the name of a table, or a URI."""

    version: int | None
    """Number of the version it belongs to."""

    job_id: UUID | None
    """The job that made it."""

    created_at: Instant
    tainted_by: list[UUID]
    """Jobs whose samples it holds, or learned from, though they are forgotten or about to be; see
    `jobs`. Of something purged: what it held."""

    purge_after: Instant | None
    purged_at: Instant | None


class ForgettingRead(Out):
    """What a job made forgotten, or is to."""

    job_id: UUID
    forgotten_at: Instant | None
    """Null while it runs."""

    requests: int
    """How many deletion requests it serves."""

    request_ids: list[UUID]
    """The first 100 of them."""

    samples: int
    """How many ids they name, each counted for each request."""


class LineageRead(Out):
    """Everything of a model that was made from data: a page of versions, and what belongs to no
    version on the first one."""

    model: str
    items: list[DerivedRead]
    jobs: list[ForgettingRead]
    """Those that `tainted_by` names."""

    next_cursor: str | None
    """Send it as `cursor` to get the next page; null on the last. `limit` counts versions."""


class Drift(Out):
    """How far the champion is from the last version that was trained, not changed."""

    since_version: int
    """That version."""

    forgotten_share: float
    """Of the samples it was trained on, those that its successors were made to forget."""

    accuracy_change: float
    """Of the test accuracy (of the hold-out's without a test split), added up since."""

    limits: DriftLimits
    exceeded: bool
    """Whether a limit is passed: then the model should be retrained."""


class References(Out):
    """Networks trained on halves of the training samples, to learn what unseen samples meet.

    They are discarded; what they said of each sample is kept, for jobs and audits.
    """

    models: int
    """How many the policy asks for."""

    status: RegistrationStatus
    """Jobs make use of them once they are `ready`, and do without when they have `failed`."""

    seconds: float | None = None
    """What they cost: from the start of their training to its end."""

    completed_at: Instant | None = None
    failure: str | None = None


class ModelRead(_Definition, Registered):
    """A model, how far its registration is, and the version to serve."""

    model_config = ConfigDict(extra="ignore")

    dataset: str
    weights: str
    suppressed_samples: int
    """How many samples of the dataset other models had forgotten when this one was registered: it
    was trained elsewhere, perhaps on some of them."""

    warning: str | None
    """What to do about that."""

    status: RegistrationStatus
    champion: VersionRead | None
    drift: Drift | None
    """Null until there is a champion."""

    references: References | None
    """Null where the policy asks for none."""
