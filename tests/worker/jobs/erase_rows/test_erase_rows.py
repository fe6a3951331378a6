"""Rows of forgotten samples are deleted from the files, and the index follows them."""

import json
import os

import pyarrow.parquet as pq
import pytest
from sqlalchemy import select, update

from domain.errors import JobError
from domain.states import JobKind, JobStatus, RegistrationStatus
from domain.tables import Dataset, Job
from tests import factories
from tests.worker.jobs.erase_rows.files import GONE, assert_in_step, contents, ids_in
from worker.data import parquet_rewrite
from worker.jobs.erase_rows import erase_rows
from worker.jobs.index_dataset import index_dataset
from worker.store.artifacts import digest_of


def test_rows_go_from_the_files_and_the_index_follows(
    sync_sessions, dataset, files, add_model, claimed, erased
):
    add_model("a", *GONE, "person-9")
    add_model("b", *GONE, "person-10")
    before = [pq.ParquetFile(file) for file in files]
    digests = [digest_of(file) for file in files]
    bench = claimed()

    erase_rows(bench)

    everybody = [f"person-{n}" for n in range(24)]
    assert ids_in(files) == [name for name in everybody if name not in GONE]
    assert_in_step(sync_sessions, dataset, files)
    [event] = erased()
    assert event.subject_id == dataset.id
    assert event.data["samples"] == 4
    assert event.data["files"] == [
        {
            "before_sha256": digest, "after_sha256": digest_of(file),
            "rows_before": 12, "rows_after": rows,
        }
        for digest, file, rows in zip(digests, files, (9, 11), strict=True)
    ]  # fmt: skip
    assert not any(name in json.dumps(event.data) for name in GONE)
    for file, old in zip(files, before, strict=True):
        new = pq.ParquetFile(file)
        assert new.schema_arrow.equals(old.schema_arrow, check_metadata=True)
        assert new.num_row_groups == old.num_row_groups
        for column in range(old.metadata.num_columns):
            was, now = (f.metadata.row_group(0).column(column) for f in (old, new))
            assert now.compression == was.compression
            assert now.encodings == was.encodings
    assert sorted(file.parent.iterdir()) == sorted(files)
    with sync_sessions.begin() as session:
        assert session.get_one(Job, bench.claim.job_id).status is JobStatus.COMPLETED


def test_only_files_that_have_such_rows_are_touched(dataset, files, add_model, claimed):
    add_model("a", "person-1")
    untouched = files[1].stat()

    erase_rows(claimed())

    now = files[1].stat()
    assert (now.st_ino, now.st_mtime_ns) == (untouched.st_ino, untouched.st_mtime_ns)


@pytest.mark.parametrize("status", [RegistrationStatus.READY, RegistrationStatus.PENDING])
def test_what_one_model_has_not_forgotten_stays(dataset, files, add_model, claimed, status):
    add_model("a", *GONE)
    add_model("b", "person-6", status=status)
    before = ids_in(files)

    erase_rows(claimed())

    assert before == [*ids_in(files)[:6], "person-6", *ids_in(files)[6:]]


def test_a_model_that_could_not_be_registered_asks_for_nothing(dataset, files, add_model, claimed):
    add_model("a", *GONE)
    add_model("b", status=RegistrationStatus.FAILED)

    erase_rows(claimed())

    assert len(ids_in(files)) == 20


def test_a_second_job_finds_what_was_forgotten_since(
    sync_sessions, dataset, files, add_model, claimed, erased
):
    add_model("a", "person-3")
    erase_rows(claimed())
    with sync_sessions.begin() as session:
        model = session.scalars(select(factories.Model).filter_by(name="a")).one()
        job = session.scalars(select(Job).filter_by(model_id=model.id)).one()
        session.add(factories.tombstone(model, job, "person-4", key=dataset.tombstone_key))

    erase_rows(claimed())

    assert len(ids_in(files)) == 22
    assert_in_step(sync_sessions, dataset, files)
    assert [event.data["samples"] for event in erased()] == [1, 1]


def test_a_file_with_a_second_name_is_refused(dataset, files, add_model, claimed, tmp_path):
    add_model("a", *GONE)
    os.link(files[0], tmp_path / "a copy that costs nothing")
    before = contents(files)

    with pytest.raises(JobError, match="second name"):
        erase_rows(claimed())

    assert contents(files) == before


def test_where_no_new_file_can_be_written_nothing_changes(files, tmp_path):
    before = files[0].read_bytes()

    with pytest.raises(JobError, match="write permission"):
        parquet_rewrite.rewrite(files[0], "id", {"person-0"}, tmp_path / "nowhere" / "new")

    assert files[0].read_bytes() == before


def test_a_name_may_be_as_long_as_names_can_be(files, register, bench_for, bench_of, definition):
    long = files[0].rename(files[0].with_name(f"{'x' * 247}.parquet"))
    dataset = register(long, definition={**definition, "erase": {"parquet": True}})

    index_dataset(bench_for(dataset))
    new = parquet_rewrite.beside(long, "a-job")

    assert parquet_rewrite.rewrite(long, "id", {"person-0"}, new).rows_after == 11


def test_files_that_were_never_remembered_are_refused(
    sync_sessions, dataset, files, add_model, claimed
):
    add_model("a", *GONE)
    with sync_sessions.begin() as session:
        session.execute(update(Dataset).values(files=None))

    with pytest.raises(JobError, match="before its files were recorded"):
        erase_rows(claimed())


def test_nested_files_and_folders_as_columns_are_erased_too(
    rows, write, register, bench_for, definition, refreshed, sync_sessions, bench_of
):
    for place, part in enumerate(("train", "valid")):
        ids = [f"person-{12 * place + n}" for n in range(12)]
        columns = {k: v for k, v in rows(12, id=ids).items() if k != "part"}
        path = write(columns, f"part={part}/deep/f.PARQUET", row_group_size=4)
    asked = {**definition, "erase": {"parquet": True}}
    dataset = register(path.parents[2], definition=asked)
    index_dataset(bench_for(dataset))
    dataset = refreshed(dataset)
    assert dataset.status is RegistrationStatus.READY, dataset.failure
    model = factories.model(dataset, name="a")
    job = factories.job(model_id=model.id, finished=True)
    with sync_sessions.begin() as session:
        for row in (model, job):
            session.add(row)
            session.flush()
        key = dataset.tombstone_key
        session.add_all(factories.tombstone(model, job, each, key=key) for each in GONE)

    erase_rows(bench_of(Job(kind=JobKind.ERASE_ROWS, dataset_id=dataset.id)))

    found = sorted(path.parents[2].rglob("*.PARQUET"))
    assert_in_step(sync_sessions, dataset, found)
    assert len(ids_in(found)) == 20


def test_files_that_came_to_the_directory_are_named(dataset, files, add_model, claimed, write):
    add_model("a", *GONE)
    before = contents(files)
    write(pq.read_table(files[0]), "extra/c.parquet")
    write(pq.read_table(files[0]).slice(0, 0), "empty.parquet")

    with pytest.raises(JobError, match=r"has 1 Parquet files that were not read .*extra/c\.parq"):
        erase_rows(claimed())

    assert contents(files) == before


def test_a_file_all_of_whose_rows_go_stays_a_file_of_the_dataset(
    dataset, files, add_model, claimed, sync_sessions
):
    add_model("a", *[f"person-{n}" for n in range(12)])
    erase_rows(claimed())

    erase_rows(claimed())

    assert [pq.read_metadata(file).num_rows for file in files] == [0, 12]
    assert_in_step(sync_sessions, dataset, files)


def test_the_checksum_that_hadoop_keeps_goes_with_the_old_file(dataset, files, add_model, claimed):
    sums = [file.with_name(f".{file.name}.crc") for file in files]
    for each in sums:
        each.touch()
    add_model("a", "person-1")

    erase_rows(claimed())

    assert [each.exists() for each in sums] == [False, True]
