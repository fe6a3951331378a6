"""Labels that have names: text, dictionaries, and ClassLabel columns."""

import json

import pyarrow as pa
import pytest

from domain.errors import JobError
from worker.data.class_names import UNKNOWN
from worker.data.parquet import Source

PETS = ["cat", "dog", "bird"]


@pytest.fixture
def labels_of(write, rows, definition):
    """The labels of files with these label columns, and the names, as a dataset reads them."""

    def read(*columns, names=None, named=(), **how):
        for number, column in enumerate(columns):
            table = pa.table(rows(len(column), digit=column))
            if number < len(named) and named[number]:
                feature = {"digit": {"names": named[number], "_type": "ClassLabel"}}
                table = table.replace_schema_metadata(
                    {"huggingface": json.dumps({"info": {"features": feature}})}
                )
            path = write(table, name=f"{number}.parquet", **how)
        source = Source.open(path.parent, {**definition, "classes": names})
        found = [label for _, batch in source.batches(("label",)) for label in batch["label"]]
        return pa.array(found).to_pylist(), source.classes.names, source.classes.source

    return read


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int8(), pa.string())]
)
def test_text_is_read_by_its_name(labels_of, kind):
    column = pa.array(["bird", "cat", None, "fish", "dog"]).cast(kind)

    found, names, source = labels_of(column, names=PETS)
    assert found == [2, 0, None, UNKNOWN, 1]
    assert (names, source) == (PETS, "declared")


def test_dictionaries_in_another_order_in_each_row_group_and_file_are_read_by_name(labels_of):
    one = pa.DictionaryArray.from_arrays(pa.array([0, 1, 1], pa.int8()), ["dog", "cat"])
    other = pa.DictionaryArray.from_arrays(pa.array([0, 1, 0], pa.int8()), ["cat", "dog"])

    found, _, _ = labels_of(one, other, names=PETS, row_group_size=2)
    assert found == [1, 0, 0, 0, 1, 0]


def test_the_names_of_a_class_label_column_are_known(labels_of):
    assert labels_of(pa.array([2, 0]), named=[PETS]) == ([2, 0], PETS, "huggingface")
    assert labels_of(pa.array([2, 0]), named=[PETS], names=PETS) == ([2, 0], PETS, "declared")


def test_text_in_one_file_goes_by_the_names_in_another(labels_of):
    found, _, _ = labels_of(pa.array([2, 0]), pa.array(["dog"]), named=[PETS])
    assert found == [2, 0, 1]


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"named": [PETS, PETS[::-1]]}, "1.parquet .*class 0 is 'bird' there, where the files"),
        ({"named": [PETS, PETS[:2]]}, "class 2 is no class there, where the files before it say"),
        ({"named": [PETS], "names": PETS[::-1]}, "class 0 is 'cat' there, where `classes` says"),
        ({"named": [["cat", "cat"]]}, "'cat' more than once"),
    ],
)
def test_names_that_contradict_are_refused(labels_of, how, message):
    with pytest.raises(JobError, match=message):
        labels_of(pa.array([0]), pa.array([1]), **how)


@pytest.mark.parametrize("kind", [pa.string(), pa.dictionary(pa.int8(), pa.string())])
def test_text_without_names_is_refused_and_not_numbered_by_guess(labels_of, kind):
    with pytest.raises(JobError, match=r"nothing says which class has which number.*`classes`"):
        labels_of(pa.array(["cat", "dog"]).cast(kind))


@pytest.mark.parametrize(
    "metadata",
    [
        "{", "[]", "null", '{"info": null}', '{"info": {"features": {"digit": 3}}}',
        '{"info": {"features": {"digit": {"_type": "Value", "dtype": "int64"}}}}',
        '{"info": {"features": {"digit": {"_type": "ClassLabel", "names": null}}}}',
        '{"info": {"features": {"digit": {"_type": "ClassLabel", "names": [1, 2]}}}}',
        "[" * 100_000,
    ],
)  # fmt: skip
def test_metadata_of_another_form_says_nothing(write, rows, definition, metadata):
    path = write(pa.table(rows()).replace_schema_metadata({"huggingface": metadata}))

    assert Source.open(path, definition).classes.names is None
