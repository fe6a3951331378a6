"""Names of classes: a dataset's against a model's."""

import pytest

from domain.classes import check, label_map

PETS = ["cat", "dog", "bird"]


@pytest.mark.parametrize(
    ("dataset", "model"),
    [(PETS, PETS), (None, PETS), (PETS, None), (None, None), (PETS, ["0", "1", "2"])],
)
def test_equal_or_unknown_names_leave_labels_as_they_are(dataset, model):
    assert label_map(dataset, model, wanted=False) is None


def test_another_order_is_mapped_only_when_asked():
    model = ["bird", "cat", "dog"]
    assert label_map(PETS, model, wanted=True) == [1, 2, 0]
    with pytest.raises(ValueError, match="class 0 is 'bird' for the model and 'cat' for the"):
        label_map(PETS, model, wanted=False)
    assert label_map(PETS, PETS, wanted=True) is None


def test_digits_are_names_where_the_dataset_has_them():
    with pytest.raises(ValueError, match="class 0 is '0' for the model and '1' for the dataset"):
        label_map(["1", "0"], ["0", "1"], wanted=False)


@pytest.mark.parametrize("wanted", [False, True])
@pytest.mark.parametrize(
    ("model", "message"),
    [
        (["cat", "dog", "fish"], "only the model has 'fish'; only the dataset has 'bird'"),
        (["cat", "dog"], "The model has 2 classes and the dataset 3"),
        (["cat", "dog", "bird", "fish"], "The model has 4 classes and the dataset 3"),
        (["Cat", "dog", " bird"], "differ only in case or spaces"),
        (["cat", "dog", "dog"], "'dog' more than once"),
        (["cat", "dog", " "], "have an empty one"),
        (["0", "1", "bird"], "name different classes"),
    ],
)
def test_other_names_are_never_mapped(model, message, wanted):
    with pytest.raises(ValueError, match=message):
        label_map(PETS, model, wanted=wanted)


def test_mapping_needs_names_on_both_sides():
    with pytest.raises(ValueError, match="those of the dataset are not known"):
        label_map(None, PETS, wanted=True)
    with pytest.raises(ValueError, match="those of the model are not known"):
        label_map(PETS, None, wanted=True)


@pytest.mark.parametrize("name", ["a\0", "\ud800"])
def test_names_that_cannot_be_stored_are_refused(name):
    with pytest.raises(ValueError, match="not valid text"):
        check(["cat", name], "`classes`")
