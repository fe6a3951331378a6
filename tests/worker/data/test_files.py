"""Which files of a directory are a dataset's, in which order, and what is said of the others."""

import os
from pathlib import Path

import pyarrow as pa
import pytest

from domain.errors import JobError
from worker.data import files
from worker.data.parquet import Source


@pytest.fixture
def top(tmp_path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def put(rows, write):
    """Write sound rows under each of these names, by their order."""

    def to_files(*names, **columns):
        for number, name in enumerate(names):
            ids = [f"{number}-{n}" for n in range(2)]
            written = {**rows(2, id=ids), **columns}
            write({k: v for k, v in written.items() if v is not None}, name)

    return to_files


def names(listing) -> list[str]:
    return [listing.name_of(each.path) for each in listing.found]


def read(top, definition, role="sample_id"):
    batches = [batch for _, batch in Source.open(top, definition).batches()]
    return [value for batch in batches for value in batch[role].to_pylist()]


def test_files_are_found_at_any_depth_and_in_any_case(put, top, definition):
    put(
        "b.PARQUET", "a.parquet", "extra/c.parquet", "extra/a.snappy.Parquet", "z.parquet/d.parquet"
    )

    found = files.find(top)

    assert names(found) == [
        "a.parquet", "b.PARQUET", "extra/a.snappy.Parquet", "extra/c.parquet",
        "z.parquet/d.parquet",
    ]  # fmt: skip
    assert [each[0] for each in read(top, definition)[::2]] == ["1", "0", "3", "2", "4"]


def test_files_at_the_top_keep_the_order_of_older_releases(put, top):
    put("b.parquet", "B.parquet", "a-1.parquet", "a.parquet", "a b.parquet", "ä.parquet")

    assert [each.path for each in files.find(top).found] == sorted(top.glob("*.parquet"))


def test_what_is_left_out_is_named_with_the_reason(put, top):
    put("a.parquet", ".b.parquet", "_c.parquet", "_temporary/0/d.parquet", "e.parquet.gz", "f.parq")
    for name in ("_SUCCESS", ".a.parquet.crc", "README.md", "g.pq", "h.csv"):
        (top / name).touch()
    os.mkfifo(top / "pipe")
    (top / "lost").symlink_to("nowhere")

    assert files.find(top).report() == {
        "found": 1,
        "left_out": 12,
        "names": ["a.parquet"],
        "names_left_out": [
            {"name": name, "reason": reason}
            for name, reason in (
                (".a.parquet.crc", files.HIDDEN), (".b.parquet", files.HIDDEN),
                ("README.md", files.OTHER), ("_SUCCESS", files.HIDDEN),
                ("_c.parquet", files.HIDDEN), ("_temporary", files.HIDDEN),
                ("e.parquet.gz", files.LOOKS_ALIKE), ("f.parq", files.LOOKS_ALIKE),
                ("g.pq", files.LOOKS_ALIKE), ("h.csv", files.OTHER),
                ("lost", files.DANGLING), ("pipe", files.NO_FILE),
            )
        ],
    }  # fmt: skip


def test_a_hundred_files_are_named_and_the_others_counted(top):
    top.mkdir()
    for number in range(150):
        (top / f"{number:03}.parquet").touch()
        (top / f"{number:03}.txt").touch()

    report = files.find(top).report()

    assert (report["found"], report["left_out"]) == (150, 150)
    assert report["names"] == [f"{number:03}.parquet" for number in range(100)]
    assert len(report["names_left_out"]) == 100


def test_folders_are_columns(put, top, definition):
    put(
        "part=train/digit=3/a.parquet", "part=va%6Cid/digit=1/a.parquet",
        "part=__HIVE_DEFAULT_PARTITION__/digit=__HIVE_DEFAULT_PARTITION__/b.parquet",
        "_year=2020/part=x%2Fy%20z/digit=-07/c.parquet",
        part=None, digit=None,
    )  # fmt: skip

    assert (
        read(top, definition, "split") == ["x/y z"] * 2 + [None] * 2 + ["train"] * 2 + ["valid"] * 2
    )
    assert read(top, definition, "label") == [-7, -7, None, None, 3, 3, 1, 1]
    source = Source.open(top, definition)
    assert source.take([7, 2], ("label", "split")).to_pylist() == [
        {"label": 1, "split": "valid"}, {"label": None, "split": None},
    ]  # fmt: skip
    assert sum(batch.num_rows for _, batch in source.batches(("split",))) == 8


def test_folders_may_be_named_by_the_classes_and_not_by_two_meanings(put, top, definition):
    put("digit=dog/a.parquet", "digit=a%20cat/b.parquet", digit=None)
    named = {**definition, "classes": ["a cat", "dog"]}
    assert read(top, named, "label") == [0, 0, 1, 1]

    put("digit=1/c.parquet", digit=None)
    with pytest.raises(JobError, match="class number 1, or for the class that"):
        read(top, {**definition, "classes": ["dog", "a cat", "1"]}, "label")


def test_folders_that_name_no_column_of_the_dataset_are_no_columns(put, top, definition):
    put("year=2020/a.parquet", "plain/x=y/b.parquet", "=3/c.parquet")

    assert read(top, definition, "label") == [0, 1] * 3


@pytest.mark.parametrize(
    ("name", "columns", "message"),
    [
        ("part=train/a.parquet", {}, r"Column 'part' is in a\.parquet and in the name of a folder"),
        ("digit=cat/a.parquet", {"digit": None}, "digit=cat stands for a label, which must be"),
        ("digit=1e3/a.parquet", {"digit": None}, "must be an integer"),
        ("digit=99999999999999999999/a.parquet", {"digit": None}, "must be an integer"),
        ("id=anna/a.parquet", {"id": None}, "'id' for sample_id is in the name of a folder"),
        ("pixels=1/a.parquet", {"pixels": None}, "'pixels' for input is in the name of a folder"),
        ("part=a/part=b/a.parquet", {"part": None}, "Two folders above a.parquet name the column"),
        ("part=%ff/a.parquet", {"part": None}, "not encoded as UTF-8"),
    ],
)
def test_folders_that_cannot_be_a_column_are_refused(put, top, definition, name, columns, message):
    put(name, **columns)

    with pytest.raises(JobError, match=message):
        Source.open(top, definition)


def test_a_column_that_one_folder_lacks_is_missed(put, top, definition):
    put("part=train/a.parquet", "b.parquet", part=None)

    with pytest.raises(JobError, match=r"b\.parquet has no column 'part' for split"):
        Source.open(top, definition)


def link_to_itself(top):
    (top / "loop.parquet").symlink_to("loop.parquet")


def link_to_the_top(top):
    (top / "again").symlink_to(top)


def link_to_a_folder_twice(top):
    (top / "z").symlink_to(top / "more")


def link_outside(top):
    (top / "b.parquet").symlink_to("/etc/passwd")


def folder_outside(top):
    (top / "other").symlink_to("/usr")


def same_file_twice(top):
    (top / "b.parquet").symlink_to(top / "a.parquet")


def second_name(top):
    os.link(top / "a.parquet", top / "b.parquet")


def dangling(top):
    (top / "b.parquet").symlink_to("nowhere")


def pipe(top):
    os.mkfifo(top / "b.parquet")


def delta(top):
    (top / "_delta_log").mkdir()


def iceberg(top):
    (top / "metadata").mkdir()
    (top / "metadata" / "v1.metadata.json").touch()


def not_utf8(top):
    (top / os.fsdecode(b"\xff.parquet")).touch()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (link_to_itself, "a link that leads back to itself"),
        (link_to_the_top, "are the same, so its rows would be read twice, or without end"),
        (link_to_a_folder_twice, "are the same"), (same_file_twice, "are the same"),
        (second_name, "are the same"), (link_outside, "leads outside the allowed directories"),
        (folder_outside, "leads outside"), (dangling, "a link that leads nowhere"),
        (pipe, "neither a file nor a directory"), (delta, "table in the format Delta Lake"),
        (iceberg, "table in the format Iceberg"), (not_utf8, "a name that is not UTF-8"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_as_it_is_is_refused(put, top, tmp_path, make, message):
    put("a.parquet", "more/c.parquet")
    make(top)

    with pytest.raises(JobError, match=message):
        files.find(top, [tmp_path])


def test_links_within_the_allowed_directories_are_followed(put, top, tmp_path):
    put("a.parquet", "../elsewhere/b.parquet", "../elsewhere/c#1?.parquet")
    (top / "linked").symlink_to(tmp_path / "elsewhere")
    (top / "d.parquet").symlink_to(tmp_path / "elsewhere" / "b.parquet")

    with pytest.raises(JobError, match="are the same"):
        files.find(top, [tmp_path])
    (top / "d.parquet").unlink()

    assert names(files.find(top, [tmp_path])) == [
        "a.parquet", "linked/b.parquet", "linked/c#1?.parquet"
    ]  # fmt: skip


def test_a_directory_without_parquet_says_what_it_has(top):
    top.mkdir()
    (top / "a.parq").touch()

    with pytest.raises(JobError, match=r"There is no \*\.parquet file .* Left out: a\.parq\."):
        files.find(top)


def test_an_indexed_dataset_is_read_as_it_was_indexed(put, top, definition):
    put("a.parquet", "b.parquet")
    known = [str(each.path) for each in files.find(top).found]
    put("a0.parquet", "extra/c.parquet")

    assert names(files.known(top, known)) == ["a.parquet", "b.parquet"]
    assert names(files.known(top, None)) == ["a.parquet", "a0.parquet", "b.parquet"]


def test_a_file_without_rows_is_a_file(rows, write, top, definition):
    write(pa.table(rows(2)), "a.parquet")
    write(pa.table(rows(2)).slice(0, 0), "b.parquet")

    assert [each.name for each in Source.open(top, definition).files] == ["a.parquet", "b.parquet"]
