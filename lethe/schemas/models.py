"""Models (neural networks), their versions, and everything that was made from their data."""

from datetime import datetime, timedelta
from typing import Literal, Self
from uuid import UUID

from pydantic import Field, JsonValue

from lethe.calls import Call
from lethe.schemas.backbones import CheckedBackbone
from lethe.schemas.common import Registered, RegistrationStatus, Result, Word
from lethe.schemas.near_duplicates import NearDuplicates
from lethe.schemas.versions import Version


class Escalation(Word):
    """What a job may try after a verdict of `fail`."""

    MORE_CYCLES = "more_cycles"
    STRONGER = "stronger"
    RETRAIN = "retrain"


class DriftLimits(Result):
    """How far approximate versions may lead away from the last exact training."""

    max_forgotten_share: float = 0.3
    max_accuracy_drop: float = 0.05


class Batching(Result):
    """How requests that wait for one model are put together into jobs."""

    window: timedelta | None = None
    """How long a request waits for others; None for a quarter of the time to its due date, at most
    seven days."""

    max_samples: int = 10_000


class Policy(Result):
    """How much is kept for jobs, how they are judged, and what follows from a verdict.

    Only what is set is sent; for the rest the service's defaults hold.
    """

    reservoir_samples: int = 10_000
    evaluation_samples: int = 10_000
    max_test_accuracy_drop: float = 0.03
    max_class_accuracy_drop: float = 0.10
    max_nll_increase: float = 0.5
    max_ece_increase: float = 0.1
    escalation: list[Escalation] = Field(default=list(Escalation))
    mode: Literal["auto", "approximate", "exact"] = "auto"
    """Whether jobs change the model, retrain it, or do what is cheaper."""

    max_forget_share: float = 0.5
    drift: DriftLimits = DriftLimits()
    batch: Batching = Batching()
    grace: timedelta = timedelta(hours=72)
    """How long after a version was superseded its files are deleted."""

    reference_models: int = 0
    """So many networks are trained on halves of the training samples; an even number."""

    group: Literal["column", "near_duplicates"] = "column"
    """Which samples belong together: by the dataset's column, or also those nearly the same."""

    fine_tuned_steps: int = 0
    """So many steps a copy of each new version is trained further, to see what comes back."""

    pooled_audit_days: int = 90
    """So long measurements of what was forgotten are kept, to be judged together."""


class PythonArchitecture(Result):
    """A function that the service allows builds the network."""

    kind: Literal["python"] = "python"
    factory: str
    """`package.module:function`."""

    arguments: dict[str, JsonValue] = Field(default={})


class TransformersArchitecture(Result):
    """`config.json` beside the weights says which image or sequence classifier it is."""

    kind: Literal["transformers"] = "transformers"


class Channels(Word):
    """Colour, or grey."""

    RGB = "RGB"
    L = "L"


class ShortestEdge(Result):
    """A size that keeps the shape of an image."""

    shortest_edge: int


class Interpolation(Word):
    """How pixels between others are computed, in Pillow's words."""

    NEAREST = "nearest"
    BOX = "box"
    BILINEAR = "bilinear"
    HAMMING = "hamming"
    BICUBIC = "bicubic"
    LANCZOS = "lanczos"


class Orientation(Word):
    """Turn images as their EXIF data say, or leave them as they are stored."""

    EXIF = "exif"
    IGNORE = "ignore"


class Ground(Word):
    """Show the hidden colours of transparent images, or put them on white or black."""

    DROP = "drop"
    WHITE = "white"
    BLACK = "black"


class Frames(Word):
    """The frame or page that is taken."""

    FIRST = "first"


class Cmyk(Word):
    """RGB computed without a colour profile."""

    NAIVE = "naive"


class ColorProfile(Word):
    """Take the numbers as they are, or convert them to sRGB."""

    IGNORE = "ignore"
    SRGB = "srgb"


class SixteenBit(Word):
    """Keep the upper 8 bits."""

    HIGH_BYTE = "high_byte"


class Preprocessing(Result):
    """From a stored input to the network's: `(input * scale - mean) / std`."""

    resize: tuple[int, int] | ShortestEdge | None = None
    """Height and width, or the shorter side; None when all images have one size."""

    interpolation: Interpolation = Interpolation.BILINEAR
    crop: tuple[int, int] | None = None
    """Height and width cut out of the centre, after `resize`."""

    mode: Channels = Channels.RGB
    orientation: Orientation | None = None
    """For images that their EXIF data turn. This and the next five are needed where the report of
    the dataset counts such images."""

    alpha: Ground | None = None
    frames: Frames | None = None
    cmyk: Cmyk | None = None
    color_profile: ColorProfile | None = None
    sixteen_bit: SixteenBit | None = None
    scale: float | None = None
    """None stands for 1/255 where images or pixels are bytes; other pixels need it."""

    mean: list[float] = Field(default=[0.0])
    std: list[float] = Field(default=[1.0])


class Drift(Result):
    """How far the champion is from the last version that was trained, not changed."""

    since_version: int
    forgotten_share: float
    accuracy_change: float
    limits: DriftLimits
    exceeded: bool
    """Whether the model should be retrained."""


class References(Result):
    """Networks trained on halves of the training samples, to learn what unseen samples meet."""

    models: int
    status: RegistrationStatus
    seconds: float | None = None
    completed_at: datetime | None = None
    failure: str | None = None


class Measured(Word):
    """What a time rests on, from the poorest to the best."""

    STEPS = "steps"
    REFERENCE_MODELS = "reference_models"
    RETRAINING = "retraining"


class Retraining(Result):
    """What a retraining takes on one kind of device."""

    device: str
    retraining_seconds: float
    measured: Measured
    samples: int
    """So many training samples it is for."""

    passes: float | None
    assumed: bool
    """Whether the passes over the data are assumed, as the recipe does not say them."""


class ExpectedAccuracy(Result):
    """The accuracy that you measured, of training samples, of the hold-out, or both."""

    train: float | None = None
    holdout: float | None = None
    tolerance: float = 0.01


class Objection(Word):
    """What speaks against the accuracy that registration measured."""

    NO_BETTER_THAN_CHANCE = "no_better_than_chance"
    WORSE_THAN_HOLDOUT = "worse_than_holdout"


class Accuracy(Result):
    """The accuracy that registration measured."""

    train: float | None
    train_class_mean: float | None
    train_samples: int
    holdout: float | None
    holdout_samples: int
    chance: float
    """What `train_class_mean` is for a network that gives one answer to everything."""

    expected: ExpectedAccuracy | None
    accepted: bool
    """Whether objections did not count."""

    objections: list[Objection]
    remark: str | None
    """The same in a sentence, as certificates say it."""


class Specimen(Result):
    """One sample as the network gets it, and its answer."""

    label: int
    answer: int
    confidence: float
    smallest: float
    largest: float
    mean: float
    values: list[float]
    """The first of them."""


class Preview(Result):
    """Sample inputs as the champion's network gets them, after preprocessing."""

    shape: list[int]
    type: str
    samples: list[Specimen]


class Model(Registered):
    """A model, how far its registration is, and the version to serve."""

    dataset: str
    dataset_state: int = 1
    """The number of the dataset's state that it was trained on."""

    weights: str
    architecture: PythonArchitecture | TransformersArchitecture
    head: str
    preprocessing: Preprocessing = Preprocessing()
    preprocessing_source: str | None = None
    """`declared`, `default`, or the file beside the weights that says it."""

    classes: list[str] | None = None
    """Names of the outputs, in their order."""

    classes_source: str | None = None
    """`declared` or `config.json`."""

    map_classes: bool = False
    """Whether the dataset's labels are translated into this order."""

    recipe: str | None = None
    backbone: CheckedBackbone | None = None
    policy: Policy = Policy()
    expected_accuracy: ExpectedAccuracy | None = None
    accept_accuracy: bool = False
    accuracy: Accuracy | None
    """What registration measured."""

    suppressed_samples: int
    """How many samples of the dataset other models had forgotten when it was registered."""

    warning: str | None
    champion: Version | None
    """The version to serve."""

    drift: Drift | None
    references: References | None
    retraining: list[Retraining] = Field(default=[])
    near_duplicates: NearDuplicates | None = None

    def again(self) -> Call[Self]:
        return Call(
            method="GET", path="/v1/models/{name}", places={"name": self.name}, reads=type(self)
        )


class DerivedKind(Word):
    """What is made from data, and so may hold what is to be forgotten."""

    WEIGHTS = "weights"
    STATISTICS = "statistics"
    RESERVOIR = "reservoir"
    FEATURES = "features"
    CHECKPOINT = "checkpoint"
    OUT_OF_SAMPLE_PREDICTIONS = "out_of_sample_predictions"
    MEMBERSHIP_STATISTICS = "membership_statistics"
    NEAR_DUPLICATES = "near_duplicates"
    SOURCE_WEIGHTS = "source_weights"


class Derived(Result):
    """Something that was made from data."""

    kind: DerivedKind
    name: str
    """The SHA-256 of a file, the name of a table, or a URI."""

    version: int | None
    job_id: UUID | None
    created_at: datetime
    tainted_by: list[UUID]
    """Jobs whose samples it holds, or learned from, though they are forgotten or about to be."""

    purge_after: datetime | None
    purged_at: datetime | None


class Forgetting(Result):
    """What a job made forgotten, or is to."""

    job_id: UUID
    forgotten_at: datetime | None
    """None while it runs."""

    requests: int
    request_ids: list[UUID]
    """The first 100 of them."""

    samples: int


class Lineage(Result):
    """What was made from a model's data: one page of its versions, and what belongs to none."""

    model: str
    items: list[Derived]
    jobs: list[Forgetting]
    """Those that `tainted_by` names."""

    next_cursor: str | None
