"""What registration found of samples that are nearly the same."""

from domain.policy import Policy
from domain.tables import Model
from service.fields import Out


class NearDuplicatesRead(Out):
    """Training samples that are nearly the same as others, such as bursts of photos, overlapping
    windows of a sensor, or a text with one word changed; as found when the model was registered.

    Two samples count as nearly the same if they are so near to each other, in all layers of the
    network, that independent samples of their class would hardly be, or if they share stretches of
    stored values that few samples have, whatever their classes.
    """

    used: bool
    """Whether they are taken for groups, as the policy's `group` says. If not, declare which
    samples belong together in the dataset's `group` column, or register the model with
    `near_duplicates`."""

    left_out: str | None
    """Why samples were not compared in the network's layers; null if they were."""

    training_samples: int
    """How many training samples were compared, with each other and with the hold-out."""

    samples: int
    """How many of them have a near-duplicate."""

    groups: int
    """The number of groups that these form."""

    largest: int
    """The number of samples in the largest group, those of the hold-out included."""

    groups_in_holdout: int
    """How many of the groups have samples in the hold-out too. The model has nearly seen those, so
    that figures on the hold-out are too good."""

    holdout_samples: int
    """How many hold-out samples have a near-duplicate, in training or in the hold-out."""

    sharing_stretches: int | None = None
    """How many training samples share stretches of stored values with others, as overlapping
    windows do. Null if this was not looked for: there were too many samples, or an older release
    registered the model."""

    not_searched: int
    """How many samples belong to classes with too few samples to say anything."""

    not_counted: int
    """How many samples have an identical one, but in a class where most samples do, so that it may
    mean nothing: data of few values are often equal."""

    examples: list[list[int]]
    """Row numbers of some samples of the largest groups, counted from 0 over the dataset's files in
    the order of their names, as they were when the model was registered."""


def read(model: Model) -> NearDuplicatesRead | None:
    """What is known of a model; None before it is ready, and of models of older releases."""
    if model.near_duplicates is None:
        return None
    used = Policy.model_validate(model.policy).group == "near_duplicates"
    return NearDuplicatesRead(used=used, **model.near_duplicates)
