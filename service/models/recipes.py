"""How a model is trained anew: by a function, or its head alone, on a backbone that stays."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from domain import functions, weights_formats
from domain.errors import WeightsRefused
from domain.policy import Policy
from domain.tables import ModelVersion
from service.fields import In, Out, Uri

HEAD = "worker.recipes:head"
"""As people write it; see `domain.functions.HEAD`."""

FunctionName = Annotated[
    str, Field(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$", max_length=255)
]


def _never(said: object) -> object:
    if said is not False:
        raise ValueError(
            "must be false: a backbone that was trained on the dataset has learned from its "
            "samples, and a new head would not make it forget them. Then register the model "
            "without `backbone`"
        )
    return said


class Backbone(In):
    """The public network that a model's head was trained on, unchanged itself."""

    weights: Uri
    """The path or `file:` URI of its weights: a `.safetensors` file, the index of its shards, or
    the directory that holds them. It must lie inside one of the directories in LETHE_DATA_ROOTS.
    All tensors of the model but the head's must be equal to these, to the last bit."""

    source: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/@:+-]{0,254}$")]
    """What it is called where it is published, with the revision, such as
    `sentence-transformers/all-MiniLM-L6-v2@c9745ed1`; no blanks. The audit trail and every
    certificate name it, beside the SHA-256 of its files."""

    trained_on_dataset: Annotated[Literal[False], BeforeValidator(_never)]
    """It must be `false`: you declare that it was never trained on this dataset. Nothing measures
    that: the audit trail and every certificate repeat it as your declaration."""

    l2: Annotated[float, Field(gt=0, le=1e6)]
    """The penalty with which the head is fitted anew: mean cross-entropy + l2 / 2 * the sum of all
    squared parameters, the bias included. Of scikit-learn's `C` it is
    1 / (C * training samples)."""


class RefitRead(Out):
    """A head fitted on all training samples at registration, in comparison with the registered one.
    It is not served; it shows what a request will change besides forgetting."""

    seconds: float
    """How long the fit took."""

    retain_accuracy: float | None
    """Its accuracy on the training samples that are kept for jobs, from 0 to 1."""

    holdout_accuracy: float | None
    """Its accuracy on the hold-out, from 0 to 1; null without one."""

    test_accuracy: float | None
    """Its accuracy on test samples, from 0 to 1; null without any."""

    largest_difference: float
    """The largest difference between its probability of a class and that of the registered head, on
    these samples, from 0 to 1."""

    same_answers: bool
    """Whether that difference is at most 0.001, as it is if the registered head was trained as the
    solution of the same problem."""


class BackboneRead(Backbone, Out):
    """The backbone as it was declared, and what registration found."""

    sha256: list[str] | None = None
    """SHA-256 of each of its files; null until the model is `ready`."""

    tensors: int | None = None
    """How many tensors of the model were found equal to those of the backbone; null until then."""

    refit: RefitRead | None = None
    """How a head fitted anew on all samples answers; null until then."""


class TrainedAnew(In):
    """What is declared of it with a model."""

    recipe: FunctionName | None = None
    """The function that retrains the network, as `package.module:function`; LETHE_RECIPES must
    allow it. Its attribute `passes` may say how many passes over the data it makes.
    `worker.recipes:head` needs no permission: it fits nothing but the head, on a `backbone`. Null
    if the model cannot be retrained."""

    backbone: Backbone | None = None
    """The public network that the head was trained on, for the recipe `worker.recipes:head`. Null
    for every other model."""

    policy: Policy = Policy()
    """What jobs may do to this model, and how their results are judged."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if functions.is_head(self.recipe) != (self.backbone is not None):
            raise ValueError(
                f"the recipe {HEAD!r} and a `backbone` go together: give both, so that jobs fit "
                "nothing but the head, or neither"
            )
        if self.policy.mode == "exact" and self.recipe is None:
            raise ValueError(
                "with `policy.mode` set to `exact` every job retrains the model, so it needs a "
                f"`recipe`: name a function that trains it, or {HEAD!r} for a head on a frozen "
                "`backbone`; or choose `auto`"
            )
        if self.backbone is not None and self.policy.reference_models:
            raise ValueError(
                "a head that is fitted anew needs no reference models, because every job is exact: "
                "leave out `policy.reference_models`"
            )
        return self


def check_backbone(path: Path) -> None:
    """Refuse a backbone whose name says that it is no safetensors.

    Raises:
        WeightsRefused: it is of another format, with what to do.
    """
    if path.suffix.lower() in weights_formats.OTHERS:
        raise WeightsRefused(
            "Only safetensors weights are accepted, of a backbone too: name its `.safetensors` "
            f"file, or the directory that holds it. {weights_formats.advice(path.name)}"
        )


def backbone(declared: dict[str, Any] | None, champion: ModelVersion | None) -> Any:
    """The backbone as answers show it; None for a model without."""
    if declared is None:
        return None
    found = {} if champion is None else champion.figures.get("backbone", {})
    return {**declared, **{name: found.get(name) for name in ("sha256", "tensors", "refit")}}
