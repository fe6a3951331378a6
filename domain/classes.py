"""The names of classes: a dataset's, in the order of its label numbers, and a model's outputs'."""

from collections import Counter
from collections.abc import Sequence

LISTED = 5
"""The most names that a message lists."""


def check(names: Sequence[str], whose: str) -> None:
    """Refuse names that do not tell classes apart.

    Args:
        whose: whose they are, for the message.

    Raises:
        ValueError: a name is empty, occurs twice, or cannot be stored; the text says what to do.
    """
    if not all(name.strip() for name in names):
        raise ValueError(f"The names of {whose} have an empty one; name every class.")
    if any("\0" in name or _unstorable(name) for name in names):
        raise ValueError(f"A name of {whose} is not valid text; correct it.")
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ValueError(
            f"The names of {whose} have {_listed(twice)} more than once; give each class a name "
            "of its own."
        )


def first_difference(one: Sequence[str], other: Sequence[str]) -> int | None:
    """The first place at which the two lists differ; None if they are equal."""
    for place, (first, second) in enumerate(zip(one, other, strict=False)):
        if first != second:
            return place
    return None if len(one) == len(other) else min(len(one), len(other))


def label_map(
    dataset: Sequence[str] | None, model: Sequence[str] | None, *, wanted: bool
) -> list[int] | None:
    """The model's output for each label of the dataset; None where they are the same.

    Args:
        dataset: names in the order of the label numbers; None if they are not known.
        model: names in the order of the outputs; None if they are not known.
        wanted: whether labels may be translated where the orders differ.

    Raises:
        ValueError: the names are not those of the same classes, or their order differs and
            `wanted` is false; the text says what to do.
    """
    if dataset is None or model is None:
        if wanted:
            lacking = "dataset" if dataset is None else "model"
            raise ValueError(
                f"map_classes needs the names on both sides, and those of the {lacking} are not "
                f"known. Register the {lacking} with `classes`."
            )
        return None
    if _only_numbers(model) and not set(dataset) & set(model):
        return None  # "0", "1", ... name nothing
    check(dataset, "the dataset's classes")
    check(model, "the model's classes")
    if set(dataset) != set(model):
        raise ValueError(_of_other_classes(dataset, model))
    place = first_difference(dataset, model)
    if place is None:
        return None
    if not wanted:
        raise ValueError(
            f"The model and the dataset number the classes differently: class {place} is "
            f"{model[place]!r} for the model and {dataset[place]!r} for the dataset. Register the "
            "model with map_classes: true to translate the dataset's labels into the model's "
            "order, or correct `classes` where they are wrong."
        )
    return [model.index(name) for name in dataset]


def _unstorable(name: str) -> bool:
    """Whether it has half of a surrogate pair, which is no character."""
    return any("\ud800" <= character <= "\udfff" for character in name)


def _only_numbers(names: Sequence[str]) -> bool:
    return list(names) == [str(number) for number in range(len(names))]


def _of_other_classes(dataset: Sequence[str], model: Sequence[str]) -> str:
    """Why two lists do not name the same classes, and what to do."""
    if len(dataset) != len(model):
        start = f"The model has {len(model)} classes and the dataset {len(dataset)}"
    else:
        start = "The model and the dataset name different classes"
    only_model = [name for name in model if name not in set(dataset)]
    only_dataset = [name for name in dataset if name not in set(model)]
    folded = {_folded(name) for name in dataset}
    spelled = only_model and all(_folded(name) in folded for name in only_model)
    parts = [
        f"only the {whose} has {_listed(names)}"
        for whose, names in (("model", only_model), ("dataset", only_dataset))
        if names
    ]
    advice = (
        "They differ only in case or spaces: write the names alike, with `classes` of the "
        "registration whose names are wrong."
        if spelled and len(dataset) == len(model)
        else "Register the model with the dataset it was trained on, or correct `classes` where "
        "they are wrong."
    )
    return f"{start} ({'; '.join(parts)}). {advice}"


def _folded(name: str) -> str:
    return " ".join(name.replace("_", " ").replace("-", " ").casefold().split())


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(repr(name[:60]) for name in names[:LISTED]) + more
