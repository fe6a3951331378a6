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

    def counted(file, size, groups, columns):
        read.extend(groups)
        return original(file, size, groups, columns)

    monkeypatch.setattr(pa.parquet.ParquetFile, "iter_batches", counted)
    source.take([45, 12, 13])

    assert read == [1, 4]


def test_take_decodes_nothing_behind_the_last_row_wanted(rows, write, definition, monkeypatch):
    monkeypatch.setattr("worker.data.parquet.TAKEN_ROWS", 5)
    source = Source.open(write(rows(100), row_group_size=50), definition)
    decoded = []
    original = pa.parquet.ParquetFile.iter_batches

    def counted(*arguments):
        for batch in original(*arguments):
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
    source = Source.open(write(rows(3, pixels=images)), definition)

    ((_, batch),) = source.batches(["input"])

    assert batch["input"].to_pylist() == [b"jpeg", None, None]


def test_big_rows_come_in_small_batches(rows, write, definition, monkeypatch):
    monkeypatch.setattr("worker.data.parquet.BATCH_BYTES", 10_000)
    images = pa.array([bytes(n.to_bytes(2, "big")) * 2_000 for n in range(20)])
    source = Source.open(write(rows(20, pixels=images)), definition)

    assert max(batch.num_rows for _, batch in source.batches(["input"])) <= 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"part": None}, "has no column 'part' for split"),
        ({"digit": ["one", "two"]}, "is string, but label must be an integer"),
        ({"digit": [1.0, 2.0]}, "is double, but label must be an integer"),
        ({"pixels": ["some text", "more"]}, "is string, but input must be an encoded image"),
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
