import pyarrow as pa
import pyarrow.compute as pc
import pytest

from domain.errors import JobError
from worker.data.parquet import ROLES, Source


def ids(table) -> list[str]:
    return table["sample_id"].to_pylist()


def test_batches_cover_all_rows_of_all_files_in_the_order_of_their_names(rows, write, definition):
    table = pa.table(rows(30))
    write(table.slice(20), "b.parquet", row_group_size=3)
    directory = write(table.slice(0, 20), "a.parquet", row_group_size=7).parent
    source = Source.open(directory, definition)

    batches = list(source.batches(rows=4))

    assert source.rows == 30
    assert [name for _, batch in batches for name in ids(batch)] == table["id"].to_pylist()
    assert all(ids(batch)[0] == f"person-{first}" for first, batch in batches)
    assert max(batch.num_rows for _, batch in batches) <= 4
    assert batches[0][1].schema.names == list(ROLES)


def test_only_the_roles_asked_for_are_read(rows, write, definition):
    source = Source.open(write(rows()), definition)

    ((_, batch),) = source.batches(("label", "sample_id"))

    assert batch.schema.names == ["label", "sample_id"]


def test_take_gives_rows_in_the_order_asked_for(rows, write, definition):
    source = Source.open(write(rows(50), row_group_size=8), definition)

    table = source.take([41, 3, 3, 17])

    assert ids(table) == ["person-41", "person-3", "person-3", "person-17"]
    assert table["input"].to_pylist() == [[41] * 4, [3] * 4, [3] * 4, [17] * 4]


def test_take_reads_only_the_row_groups_concerned(rows, write, definition, monkeypatch):
    source = Source.open(write(rows(50), row_group_size=10), definition)
    read = []
    original = pa.parquet.ParquetFile.iter_batches

    def counted(file, size, groups, columns, **options):
        read.extend(groups)
        return original(file, size, groups, columns, **options)

    monkeypatch.setattr(pa.parquet.ParquetFile, "iter_batches", counted)
    source.take([45, 12, 13])

    assert read == [1, 4]


def test_take_decodes_nothing_behind_the_last_row_wanted(rows, write, definition, monkeypatch):
    monkeypatch.setattr("worker.data.parquet.TAKEN_ROWS", 5)
    source = Source.open(write(rows(100), row_group_size=50), definition)
    decoded = []
    original = pa.parquet.ParquetFile.iter_batches

    def counted(*arguments, **options):
        for batch in original(*arguments, **options):
            decoded.append(batch.num_rows)
            yield batch

    monkeypatch.setattr(pa.parquet.ParquetFile, "iter_batches", counted)
    table = source.take([57, 3, 11])

    assert ids(table) == ["person-57", "person-3", "person-11"]
    assert sum(decoded) == 15 + 10


def test_take_of_nothing_is_an_empty_table(rows, write, definition):
    assert Source.open(write(rows()), definition).take([]).num_rows == 0


@pytest.mark.parametrize("position", [-1, 12])
def test_a_position_outside_means_the_dataset_changed(rows, write, definition, position):
    with pytest.raises(JobError, match="The dataset changed since it was indexed"):
        Source.open(write(rows(12)), definition).take([position])


def test_columns_become_one_type_however_they_are_stored(rows, write, definition):
    stored = rows(
        4,
        id=pa.array([7, 8, 9, 10]),
        part=pa.array(["train"] * 4).dictionary_encode(),
        digit=pa.array([0, 1, 2, 0], pa.uint8()),
        pixels=pa.array([[1.0] * 4] * 4, pa.list_(pa.float32(), 4)),
    )

    ((_, batch),) = Source.open(write(stored), definition).batches()

    assert ids(batch) == ["7", "8", "9", "10"]
    assert batch.schema.types == [
        pa.string(), pa.large_list(pa.float32()), pa.int64(), pa.string(),
    ]  # fmt: skip


def test_images_are_the_bytes_of_a_hugging_face_struct(rows, write, definition):
    images = pa.array([{"bytes": b"jpeg", "path": "a"}, None, {"bytes": None, "path": "b"}])
    source = Source.open(write(rows(3, pixels=images)), {**definition, "kind": "image"})

    ((_, batch),) = source.batches(["input"])

    assert batch["input"].to_pylist() == [b"jpeg", None, None]


def test_big_rows_come_in_small_batches(rows, write, definition, monkeypatch):
    monkeypatch.setattr("worker.data.parquet.BATCH_BYTES", 10_000)
    images = pa.array([bytes(n.to_bytes(2, "big")) * 2_000 for n in range(20)])
    source = Source.open(write(rows(20, pixels=images)), {**definition, "kind": "image"})

    assert max(batch.num_rows for _, batch in source.batches(["input"])) <= 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"part": None}, "has no column 'part' for split"),
        ({"digit": ["one", "two"]}, "has the labels as string, and nothing says which"),
        ({"digit": [1.0, 2.0]}, "is double, but label must be an integer"),
        (
            {"pixels": ["some text", "more"]},
            "is string, but input of the kind `pixels` must be a flat",
        ),
        ({"id": [1.5, 2.5]}, "is double, but sample_id must be text or an integer"),
    ],
)
def test_a_column_that_is_not_as_defined_is_refused(rows, write, definition, change, message):
    columns = {name: value for name, value in rows(2, **change).items() if value is not None}

    with pytest.raises(JobError, match=message):
        Source.open(write(columns), definition)


def test_files_with_different_types_are_refused(rows, write, definition):
    write(rows(2), "a.parquet")
    path = write(rows(2, pixels=pa.array([[1.0] * 4] * 2)), "b.parquet")

    with pytest.raises(JobError, match="Write all files with one schema"):
        Source.open(path.parent, definition)


def test_missing_files_are_refused(tmp_path, definition):
    with pytest.raises(JobError, match=r"There is no file .*gone\.parquet"):
        Source.open(tmp_path / "gone.parquet", definition)
    with pytest.raises(JobError, match=r"There is no \*\.parquet file"):
        Source.open(tmp_path, definition)


def test_a_file_of_something_else_is_refused(tmp_path, definition):
    path = tmp_path / "data.parquet"
    path.write_bytes(b"PK not parquet")

    with pytest.raises(JobError, match="is not a readable Parquet file"):
        Source.open(path, definition)


def test_a_file_damaged_in_the_middle_is_refused(rows, write, definition):
    path = write(rows(5000), write_page_checksum=True)
    source = Source.open(path, definition)
    damaged = bytearray(path.read_bytes())
    damaged[300:340] = bytes(byte ^ 0xFF for byte in damaged[300:340])
    path.write_bytes(damaged)

    with pytest.raises(JobError, match="is damaged"):
        sum(pc.count(batch["sample_id"]).as_py() for _, batch in source.batches())


NUMBERS = pa.array([[1.5] * 4] * 4)
IDS = pa.array([[1] * 4] * 4, pa.list_(pa.int32()))
IMAGES = pa.array([b"a"] * 4)


@pytest.mark.parametrize(
    ("kind", "inputs", "message"),
    [
        ("image", IDS, "of the kind `image` must be encoded images"),
        ("pixels", IMAGES, "of the kind `pixels` must be a flat list of numbers"),
        ("features", IMAGES, "of the kind `features` must be a flat list of numbers"),
        ("tokens", NUMBERS, "of the kind `tokens` must be a flat list of integers"),
        ("tokens", IMAGES, "of the kind `tokens` must be a flat list of integers"),
    ],
)
def test_a_column_that_is_not_of_the_declared_kind_is_refused(
    rows, write, definition, kind, inputs, message
):
    with pytest.raises(JobError, match=message):
        Source.open(write(rows(4, pixels=inputs)), {**definition, "kind": kind})


@pytest.mark.parametrize("inputs", [NUMBERS, IDS, IMAGES])
def test_a_dataset_without_a_kind_takes_any_column_that_older_releases_took(
    rows, write, definition, inputs
):
    del definition["kind"]

    assert Source.open(write(rows(4, pixels=inputs)), definition).rows == 4


def several(definition, **columns):
    return {
        **definition, "kind": "tokens", "input_shape": None,
        "columns": {**definition["columns"], "input": columns},
    }  # fmt: skip


def test_several_columns_are_read_by_the_names_of_the_network_s_arguments(rows, write, definition):
    mask = pa.array([[True, False]] * 3 + [None], pa.list_(pa.bool_()))
    stored = rows(4, ids=pa.array([[7, 8]] * 4, pa.list_(pa.int32(), 2)), mask=mask)
    chosen = several(definition, attention_mask="mask", input_ids="ids")

    ((_, batch),) = Source.open(write(stored), chosen).batches(["input"])

    assert batch["input"].to_pylist() == [
        *[{"attention_mask": [1, 0], "input_ids": [7, 8]}] * 3,
        None,
    ]


def test_a_further_input_of_a_sequence_network_is_never_dropped_silently(rows, write, definition):
    path = write(rows(4, ids=IDS, token_type_ids=IDS, attention_mask=IDS))
    one = several(definition, input_ids="ids")
    plain = {**one, "columns": {**one["columns"], "input": "ids"}}

    for silent in (plain, one):
        with pytest.raises(JobError, match="'attention_mask', 'token_type_ids', without which"):
            Source.open(path, silent)
    with pytest.raises(JobError, match=r'\{"input_ids": "ids", "attention_mask": "attention_mask"'):
        Source.open(path, plain)
    named = several(definition, input_ids="ids", token_type_ids=None, mask="attention_mask")
    assert Source.open(path, named).rows == 4
