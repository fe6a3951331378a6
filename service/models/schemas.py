"""What goes into and comes out of the routes of models (neural networks)."""

from math import isfinite
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import AfterValidator, ConfigDict, Field, JsonValue, model_validator

from service.fields import In, Instant, Label, Name, Out, Registered, Uri
from service.states import RegistrationStatus, VersionStatus


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


class PythonArchitecture(In):
    """A function of an allowed module builds the network."""

    kind: Literal["python"]
    factory: Annotated[
        str, Field(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$", max_length=255)
    ]
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


class Policy(In):
    """How much is kept for jobs, and measured by them."""

    reservoir_samples: Annotated[int, Field(ge=1, le=10_000_000)] = 5000
    """Retain samples kept for the recover phase, balanced over the classes."""

    evaluation_samples: Annotated[int, Field(ge=1, le=10_000_000)] = 10_000
    """At most this many samples of each split are measured before and after a job."""


class _Definition(In):
    weights: Uri
    """A `.safetensors` file; for `transformers` the directory of `model.safetensors`."""

    architecture: Annotated[
        PythonArchitecture | TransformersArchitecture, Field(discriminator="kind")
    ]
    head: Label
    """Name of the module whose input are the features: the classification head."""

    preprocessing: Preprocessing = Preprocessing()
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
    """`champion` is the one to serve; `superseded` ones hold forgotten data."""

    parent: int | None
    """Number of the version it was made from."""

    weights_sha256: str
    job_id: UUID
    """The job that made it."""

    figures: dict[str, Any]
    """Accuracies, feature size and sample counts measured when it was made."""

    created_at: Instant
    superseded_at: Instant | None


class ModelRead(_Definition, Registered):
    """A model, how far its registration is, and the version to serve."""

    model_config = ConfigDict(extra="ignore")

    dataset: str
    weights: str
    status: RegistrationStatus
    champion: VersionRead | None
