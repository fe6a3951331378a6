"""Whose each sample is, from the files to the index and the report."""

import json
from decimal import Decimal

import pyarrow as pa
import pytest
from sqlalchemy import null, select, text

from domain.errors import JobError
from domain.sample_digests import digest
from domain.states import JobStatus, RegistrationStatus
from domain.tables import Dataset, Job, Sample
from worker.jobs.index_dataset import index_dataset

SPLITS = ["train", "train", "valid", "test"]


@pytest.fixture
def index(register, definition, bench_for, refreshed, sync_sessions):
    """Index a dataset whose column `who` says whose a sample is; the dataset and its job."""

    def run(path, **changes):
        columns = definition["columns"] | {"group": "who"}
        dataset = register(path, definition=definition | {"columns": columns} | changes)
        index_dataset(bench := bench_for(dataset))
        with sync_sessions.begin() as session:
            return refreshed(dataset), session.get_one(Job, bench.claim.job_id)

    return run


@pytest.fixture
def groups(sync_sessions):
    """The digest of each sample's group, by the sample's id."""

    def read(dataset):
        with sync_sessions.begin() as session:
            chosen = select(Sample.sample_id, Sample.group_digest).filter_by(dataset_id=dataset.id)
            return {row.sample_id: row.group_digest for row in session.execute(chosen)}

    return read


def test_every_way_to_store_text_and_integers_gives_the_same_group(
    rows, write, index, groups, tmp_path
):
    """One file for each; what is null in all rows of a file is null."""
    columns = [
        pa.array(["a", "12", None]),
        pa.array(["a", "12", None], pa.large_string()),
        pa.array(["a", "12", None], pa.string_view()),
        pa.array(["a", "12", None]).dictionary_encode(),
        pa.array([3, 12, None], pa.int8()),
        pa.array([2**64 - 1, 12, None], pa.uint64()),
        pa.array([3, 12, None]).dictionary_encode(),
        pa.array([Decimal(3), Decimal(12), None], pa.decimal128(38, 0)),
        pa.nulls(3),
    ]
    for number, column in enumerate(columns):
        ids = [f"{number}-{row}" for row in range(3)]
        made = rows(3, id=ids, who=column, part=["train", "train", "valid"])
        write(made, f"many/{number}.parquet")

    dataset, job = index(tmp_path / "data" / "many")

    assert job.status is JobStatus.COMPLETED, dataset.failure
    found = groups(dataset)
    twelve = digest(dataset.group_key, "12")
    assert [found[f"{number}-1"] for number in range(9)] == [twelve] * 8 + [None]
    assert {found[f"{number}-2"] for number in range(9)} == {None}


def test_a_folder_is_a_group(rows, write, index, groups, tmp_path):
    for who in ("7", "anna%20b", "__HIVE_DEFAULT_PARTITION__"):
        ids = [f"{who}-{row}" for row in range(4)]
        write(rows(4, id=ids), f"people/who={who}/rows.parquet")

    dataset, _ = index(tmp_path / "data" / "people")

    found = groups(dataset)
    key = dataset.group_key
    assert found["7-0"] == digest(key, "7")
    assert found["anna%20b-0"] == digest(key, "anna b")
    assert found["__HIVE_DEFAULT_PARTITION__-0"] is None


@pytest.mark.parametrize(
    "column",
    [
        pa.array([1.0, 2.0, None]),
        pa.array([True, False, None]),
        pa.array([b"a", b"b", None]),
        pa.array([["a"], ["b"], None]),
        pa.array([1, 2, None], pa.timestamp("s")),
        pa.array([Decimal("1.5"), Decimal(2), None], pa.decimal128(5, 2)),
    ],
    ids=lambda column: str(column.type),
)
def test_a_type_that_could_name_a_person_in_two_ways_is_refused(rows, write, index, column):
    with pytest.raises(JobError, match=r"'who' of .* group must be text or an integer"):
        index(write(rows(3, who=column)))


def test_faulty_groups_are_bad_rows_and_are_not_repeated(rows, write, index, groups):
    """A missing value, 12 and 13 as pandas writes them where one of them is missing."""
    path = write(rows(8, who=["Ann Onym", "nan", "12.0", "13.0", "a\0b", None, None, None]))

    dataset, job = index(path)

    assert dataset.status is RegistrationStatus.FAILED
    for said in ("1 group missing value", "2 group from float", "1 group invalid"):
        assert said in job.failure["reason"]
    assert "write null instead of text such as nan" in job.failure["reason"]
    assert "12 and 12.0 would be two people" in job.failure["reason"]
    assert dataset.report["bad_rows"]["group_from_float"] == {
        "count": 2, "examples": [{"row": 2}, {"row": 3}],
    }  # fmt: skip
    assert "Onym" not in json.dumps(dataset.report) + str(job.failure)
    assert "13.0" not in json.dumps(dataset.report) + str(job.failure)


def test_the_report_counts_groups_of_what_can_be_used(rows, write, index, groups):
    """Two people of three rows, one of one; one has a bad row, which counts for nobody."""
    who = ["a", "a", "a", "b", "b", "b", "c", None, "d"]
    part = ["train", "train", "valid", "train", "train", "test", "valid", "train", "train"]
    dataset, _ = index(write(rows(9, who=who, part=part, digit=[0] * 8 + [-1])), bad_rows="skip")

    told = dataset.report["groups"]
    warning = told.pop("warning")
    assert told == {
        "groups": 3,
        "groups_by_split": {"train": 2, "holdout": 2, "test": 1},
        "largest_group": 3,
        "samples_without_group": 1,
        "leaking_groups": {"holdout": 1, "test": 1},
        "leaking_samples": {"holdout": 1, "test": 1},
    }
    assert "1 of the 2 hold-out groups also stands in training" in warning
    assert len(groups(dataset)) == 8


def test_leaking_groups_can_be_refused(rows, write, index, groups):
    path = write(rows(4, who=["a", "b", "a", "c"], part=SPLITS))

    dataset, job = index(path, leaking_groups="refuse")

    assert dataset.status is RegistrationStatus.FAILED
    assert "1 of the 1 hold-out groups also stands in training" in job.failure["reason"]
    assert "Move each group to one split" in job.failure["reason"]
    assert not groups(dataset)


def test_groups_that_keep_to_their_splits_are_not_refused(rows, write, index):
    dataset, _ = index(
        write(
            rows(5, who=["a", "a", "b", "b", None], part=["train"] * 2 + ["valid"] * 2 + ["train"])
        ),
        leaking_groups="refuse",
    )

    assert dataset.status is RegistrationStatus.READY
    assert "warning" not in dataset.report["groups"]


def test_an_index_made_again_takes_what_the_files_say(
    rows, write, index, groups, bench_for, sync_sessions
):
    """After a failure; as `a` became `c`, and `b` is one with it now."""
    path = write(rows(4, who=["a", "b", "nan", None], part=SPLITS))
    dataset, _ = index(path)
    write(rows(4, who=["c", "c", "d", "e"], part=SPLITS))
    with sync_sessions.begin() as session:
        session.get_one(Dataset, dataset.id).status = RegistrationStatus.PENDING

    index_dataset(bench_for(dataset))

    found = groups(dataset)
    assert [found[f"person-{n}"] for n in range(4)] == [
        digest(dataset.group_key, who) for who in "ccde"
    ]


def test_nothing_is_left_of_a_group_but_its_digest(rows, write, index, sync_sessions):
    """Neither in a table, nor where the rows stand on their way."""
    index(write(rows(4, who=["Zebulon"] * 4, part=SPLITS)))

    with sync_sessions.begin() as session:
        names = session.scalars(
            text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        ).all()
        for name in names:
            whole = session.scalar(text(f"SELECT string_agg(t::text, '') FROM {name} AS t"))
            assert "Zebulon" not in (whole or ""), name


def test_a_dataset_without_a_key_for_groups_is_not_indexed_with_groups(
    rows, write, register, definition, bench_for
):
    columns = definition["columns"] | {"group": "who"}
    path = write(rows(4, who=["a"] * 4))
    dataset = register(path, definition=definition | {"columns": columns}, group_key=null())

    with pytest.raises(JobError, match="another name"):
        index_dataset(bench_for(dataset))
