"""Backbones: public networks on which nothing but a head is ever fitted."""

from typing import Literal

from lethe.schemas.common import Result


class Backbone(Result):
    """The public network that a head was trained on, for the recipe `worker.recipes:head`."""

    weights: str
    """URI of its safetensors file, of the index of its shards, or of their directory."""

    source: str
    """What it is called where it is published, with the revision; without blanks."""

    trained_on_dataset: Literal[False]
    """You declare that it never saw the dataset; the audit trail and certificates repeat it."""

    l2: float
    """The penalty with which the head is fitted anew; see docs/ml-teams.md."""


class Refit(Result):
    """A head fitted on all training samples at registration, beside the one that is served."""

    seconds: float
    retain_accuracy: float | None
    holdout_accuracy: float | None
    test_accuracy: float | None
    largest_difference: float
    """Between its probability of a class and that of the registered head."""

    same_answers: bool


class CheckedBackbone(Backbone):
    """A backbone, and what registration found of it."""

    sha256: list[str] | None = None
    """Of its files."""

    tensors: int | None = None
    """How many tensors of the model are equal to its, to the last bit."""

    refit: Refit | None = None
