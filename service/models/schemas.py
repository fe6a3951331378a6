"""What goes into and comes out of the routes of models (neural networks)."""

from math import isfinite
from typing import Annotated, Literal, Self
from uuid import UUID

from pydantic import AfterValidator, ConfigDict, Field, JsonValue, model_validator

from domain.policy import DriftLimits
from domain.states import DerivedKind, RegistrationStatus
from service.fields import In, Instant, Label, Name, Out, Registered, Uri
from service.models.accuracy import AccuracyRead, ExpectedAccuracy
from service.models.beside import Declared, FoundRead
from service.models.near_duplicates import NearDuplicatesRead
from service.models.recipes import BackboneRead, FunctionName, TrainedAnew
from service.models.retraining import RetrainingRead
from service.models.version_schemas import VersionRead


def _storable(value: JsonValue) -> JsonValue:
    """Refuse what Python's JSON has and Postgres' has not."""
    if isinstance(value, float) and not isfinite(value):
        raise ValueError("numbers must be finite")
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ValueError("text must be valid Unicode") from None
        if "\0" in value:
            raise ValueError("text must not contain NUL characters")
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for part in (*(value if isinstance(value, dict) else ()), *parts):
        _storable(part)
    return value


class PythonArchitecture(In):
    """A network that is built by a Python function."""

    kind: Literal["python"]
    """The kind of architecture; always `python` here."""

    factory: FunctionName
    """The function that builds the network, as `package.module:function`. It must return a
    `torch.nn.Module`, and LETHE_FACTORIES must allow it."""

    arguments: Annotated[dict[str, JsonValue], AfterValidator(_storable)] = Field(default={})
    """The keyword arguments that the function is called with."""


class TransformersArchitecture(In):
    """An image or sequence classifier of Hugging Face Transformers; the file `config.json` beside
    the weights says which one."""

    kind: Literal["transformers"]
    """The kind of architecture; always `transformers` here."""


Side = Annotated[int, Field(ge=1, le=8192)]


class ShortestEdge(In):
    """A size that keeps the shape of an image."""

    shortest_edge: Side
    """The length of the shorter side in pixels."""


class Preprocessing(In):
    """How a stored input becomes the network's input: `(input * scale - mean) / std`.

    Options that do not apply to the dataset's kind of inputs are refused.
    """

    resize: tuple[Side, Side] | ShortestEdge | None = None
    """The height and width in pixels that images are resized to, or the length of their shorter
    side, as in `{"shortest_edge": 256}`; null if all images have the same size already."""

    interpolation: Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"] = (
        "bilinear"
    )
    """How `resize` computes pixels between others, in the words of Pillow. It always looks at all
    pixels of an image that becomes smaller (antialiasing)."""

    crop: tuple[Side, Side] | None = None
    """The height and width in pixels that are cut out of the centre after `resize`. Where an image
    is smaller, black is added around it."""

    mode: Literal["RGB", "L"] = "RGB"
    """How images are decoded: `RGB` in colour, `L` in grey."""

    orientation: Literal["exif", "ignore"] | None = None
    """What to do with images that are to be turned, as their EXIF data say: `exif` turns them,
    `ignore` leaves them as they are stored. This and the next five are needed only if the
    dataset's report counts such images; choose what the network was trained with."""

    alpha: Literal["drop", "white", "black"] | None = None
    """What to do with images that are partly transparent: `drop` shows the hidden colours, `white`
    and `black` put the image on such a ground."""

    frames: Literal["first"] | None = None
    """What to do with animations and files of several pages: `first` takes the first one."""

    cmyk: Literal["naive"] | None = None
    """What to do with CMYK images: `naive` computes RGB without a colour profile."""

    color_profile: Literal["ignore", "srgb"] | None = None
    """What to do with images in the colours of a profile other than sRGB: `ignore` takes the
    numbers as they are, `srgb` converts them."""

    sixteen_bit: Literal["high_byte"] | None = None
    """What to do with images of 16 bits per channel: `high_byte` keeps the upper 8 bits."""

    scale: Annotated[float, Field(gt=0)] | None = None
    """The factor that images and pixels are multiplied with. Null stands for 1/255 if they are
    bytes, such as images; pixels of any other type need it."""

    mean: list[float] = Field(default=[0.0], min_length=1, max_length=64)
    """The mean to subtract after scaling: one number, or one for each channel."""

    std: list[Annotated[float, Field(gt=0)]] = Field(default=[1.0], min_length=1, max_length=64)
    """The standard deviation to divide by: as many numbers as `mean` has."""

    @model_validator(mode="after")
    def _one_for_each_channel(self) -> Self:
        if len(self.mean) != len(self.std):
            raise ValueError("`mean` and `std` must have the same length")
        return self


class _Definition(Declared, TrainedAnew):
    weights: Uri
    """The path or `file:` URI of the weights: a `.safetensors` file, or for `transformers` the
    directory that holds `config.json` and `model.safetensors`. It must lie inside one of the
    directories in LETHE_DATA_ROOTS."""

    architecture: Annotated[
        PythonArchitecture | TransformersArchitecture, Field(discriminator="kind")
    ]
    """How the network is built that the weights belong to."""

    head: Label
    """The name of the module that is the classification head, as in `named_modules()`. Its input
    are the features that alignment is measured on."""

    preprocessing: Preprocessing = Preprocessing()
    """How a stored input becomes the network's input. What you leave out is read from the files
    beside the weights (`preprocessor_config.json`, `processor_config.json`, or `pretrained_cfg` in
    `config.json`), if there are any. An option that contradicts them is refused."""

    expected_accuracy: ExpectedAccuracy | None = None
    """The network's accuracy as you measured it. The registration fails if it measures another one,
    because then the network does not get the inputs or the labels that it was trained with. Null
    leaves only a coarse check: the training samples must be answered better than chance, and not
    worse than the hold-out."""

    accept_accuracy: bool = False
    """Whether to register the model even if that coarse check objects to it. The audit trail and
    every certificate of the model will say so. If `expected_accuracy` is given too, it must be
    right all the same."""


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
    """A unique name for the model, used in URLs: lower-case letters, digits, `.`, `_` and `-`."""

    dataset: Name
    """The name of the dataset that the model was trained on. The dataset must be `ready`."""


class DerivedRead(Out):
    """Something that was made from the model's data."""

    kind: DerivedKind
    """What it is: `weights`, `statistics`, `reservoir` and `features` (what enters the head of a
    frozen backbone) are files of a version, a `checkpoint` is a file of a running job,
    `out_of_sample_predictions` and `membership_statistics` are tables left by reference models,
    `near_duplicates` is the table of samples that are nearly the same, and `source_weights` is the
    file the model was registered from, which the service does not delete."""

    name: str
    """The SHA-256 of a file, the name of a table, or a URI."""

    version: int | None
    """The number of the version it belongs to; null if it belongs to none."""

    job_id: UUID | None
    """The job that made it; null if no job did."""

    created_at: Instant
    """When it was made."""

    tainted_by: list[UUID]
    """The jobs whose samples it still holds or learned from, although they are forgotten or about
    to be; `jobs` describes them. For something purged, what it held until then."""

    purge_after: Instant | None
    """When it is due to be deleted; null if it is not."""

    purged_at: Instant | None
    """When it was deleted; null if it still exists."""


class ForgettingRead(Out):
    """The samples that a job made the model forget, or is about to."""

    job_id: UUID
    """The job's id, as `tainted_by` names it."""

    forgotten_at: Instant | None
    """When the samples began to count as forgotten; null while the job runs."""

    requests: int
    """How many deletion requests the job serves."""

    request_ids: list[UUID]
    """The ids of those requests, at most the first 100."""

    samples: int
    """How many sample ids the requests name; an id named by two requests counts twice."""


class LineageRead(Out):
    """Everything that was made from a model's data, one page of versions at a time. The first page
    begins with what belongs to no version."""

    model: str
    """Name of the model that was asked about."""

    items: list[DerivedRead]
    """What was made from the model's data, by version, newest first."""

    jobs: list[ForgettingRead]
    """The jobs that `tainted_by` mentions on this page."""

    next_cursor: str | None
    """The value to send as `cursor` for the next page; null on the last page. `limit` counts
    versions."""


class Drift(Out):
    """How far the champion has drifted from the last version that was trained."""

    since_version: int
    """The number of the last version that was trained rather than changed."""

    forgotten_share: float
    """The share of that version's training samples that have been forgotten since, from 0 to 1."""

    accuracy_change: float
    """The change in test accuracy since then, from -1 to 1; negative if it fell. Without a test
    split it is measured on the hold-out."""

    limits: DriftLimits
    """The limits that the model's policy sets."""

    exceeded: bool
    """Whether a limit is exceeded, so that the model should be retrained."""


class References(Out):
    """Reference models: networks trained on halves of the training samples, which show how a
    network answers that never saw a sample.

    The networks are discarded. What they said about each sample is kept for jobs and audits.
    """

    models: int
    """How many reference models the policy asks for."""

    status: RegistrationStatus
    """How far their training is. Jobs use them once they are `ready`, and do without them if they
    have `failed`."""

    seconds: float | None = None
    """How long their training took, in seconds; null until they are `ready`."""

    completed_at: Instant | None = None
    """When their training ended; null until they are `ready`."""

    failure: str | None = None
    """Why their training failed; null if it did not."""


class ModelRead(FoundRead, _Definition, Registered):
    """A model, how far its registration is, and the version to serve."""

    model_config = ConfigDict(extra="ignore")

    dataset: str
    """Name of the dataset that the model was trained on."""

    preprocessing: Preprocessing = Preprocessing()
    """How a stored image becomes the network's input; once the model is `ready`, with what was read
    from the files beside the weights."""

    dataset_state: int = 1
    """The number of the dataset's state that the model was trained on. Samples that came later are
    not known to it."""

    weights: str
    """Where the weights were registered from, as it was given."""

    backbone: BackboneRead | None = None
    """The public network that the head was trained on, and how a head fitted anew on all samples
    answers; null for models that jobs change or retrain whole."""

    accuracy: AccuracyRead | None
    """The accuracy that registration measured; null until the model is `ready`, and for models that
    were registered before this was checked."""

    suppressed_samples: int
    """How many samples of the dataset other models had forgotten when this one was registered. It
    may have been trained on some of them elsewhere."""

    warning: str | None
    """What to do about suppressed samples; null if there are none."""

    status: RegistrationStatus
    """Whether the model can be used: it can be asked to forget once it is `ready`."""

    champion: VersionRead | None
    """The version to serve; null until the model is `ready`."""

    drift: Drift | None
    """How far the champion has drifted from the last version that was trained; null until there is
    a champion."""

    references: References | None
    """The state of the model's reference models; null if the policy asks for none."""

    retraining: list[RetrainingRead] = Field(default=[])
    """What a retraining takes, by the kind of device; empty if that was not measured, and for
    models without a recipe or with a `backbone`."""

    near_duplicates: NearDuplicatesRead | None = None
    """Training samples that are nearly the same as others; null until the model is `ready`, and for
    models that were registered before this was looked for."""
