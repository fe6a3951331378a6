"""Rows of a Parquet file that may not be trained on are found, and no ids are kept."""

import json
from datetime import timedelta
from multiprocessing import get_context

import pyarrow as pa
import pytest
from sqlalchemy import select, text, update

from domain.errors import JobError, LeaseLost
from domain.states import JobKind, JobStatus
from domain.tables import Base, Dataset, DatasetCheck, Job
from worker.child import main
from worker.data.sample_ids import sample_ids
from worker.engine import lease
from worker.jobs import check_dataset as checking
from worker.jobs.check_dataset import check_dataset
from worker.suppressed import open_database


def claim(session, path, column):
    """The claim of a job that checks a file for the dataset."""
    dataset = session.scalars(select(Dataset)).one()
    job = Job(kind=JobKind.CHECK_DATASET, dataset_id=dataset.id)
    session.add(job)
    session.flush()
    session.add(
        DatasetCheck(dataset_id=dataset.id, job_id=job.id, uri=path.as_uri(), column=column)
    )
    session.flush()
    return lease.claim(session, job.id, worker="test", lease=timedelta(minutes=5))


@pytest.fixture
def claimed(sync_sessions, bury, workbench):
    """A workbench with a claimed job that checks a file, when these samples are forgotten."""
    with sync_sessions.begin() as session:
        bury(session, "person-3", "person-7", "7", "nobody")

    def take(path, column="id"):
        with sync_sessions.begin() as session:
            held = claim(session, path, column)
        return workbench(held)

    return take


@pytest.fixture
def answer(sync_sessions):
    """What is stored of a check: its rows, how many are suppressed, and where they stand."""

    def read(bench):
        with sync_sessions.begin() as session:
            check = session.scalars(select(DatasetCheck).filter_by(job_id=bench.claim.job_id)).one()
            return check.rows, check.suppressed, check.positions

    return read


IDS = ["person-3", "somebody", None, "person-7", "person-3", "", "nul\0"]


def test_rows_of_forgotten_samples_are_counted_and_placed(claimed, write, answer, sync_sessions):
    bench = claimed(write({"id": IDS}, row_group_size=2))

    check_dataset(bench)

    assert answer(bench) == (7, 3, [0, 3, 4])
    with sync_sessions.begin() as session:
        assert session.get_one(Job, bench.claim.job_id).status is JobStatus.COMPLETED


def test_in_a_directory_rows_are_counted_over_all_files(claimed, rows, write, answer):
    write(rows(6), "b.parquet")
    directory = write(rows(5), "a.parquet").parent
    bench = claimed(directory)

    check_dataset(bench)

    assert answer(bench) == (11, 2, [3, 8])


@pytest.mark.parametrize("ids", [[6, 7, None], pa.array(["6", "7", "6"]).dictionary_encode()])
def test_ids_are_read_as_indexing_reads_them(claimed, write, answer, ids):
    bench = claimed(write({"id": ids}))

    check_dataset(bench)

    assert answer(bench) == (3, 1, [1])


def test_where_nothing_is_suppressed_the_answer_says_so(claimed, write, answer):
    bench = claimed(write({"id": pa.array([], pa.string())}))

    check_dataset(bench)

    assert answer(bench) == (0, 0, [])


def test_the_first_positions_are_kept_and_all_rows_counted(claimed, write, answer, monkeypatch):
    monkeypatch.setattr(checking, "KEPT", 2)
    bench = claimed(write({"id": IDS}, row_group_size=2))

    check_dataset(bench)

    assert answer(bench) == (7, 3, [0, 3])


@pytest.mark.parametrize(
    ("name", "column", "message"),
    [
        ("data/gone.parquet", "id", "There is no file"),
        ("data/text.parquet", "id", "is not a readable Parquet file"),
        ("data/data.parquet", "sample_id", "has no column 'sample_id' for sample_id"),
        ("data/data.parquet", "pixels", "must be text or an integer"),
        ("../data.parquet", "id", "outside the allowed directories"),
        ("links", "id", "outside the allowed directories"),
    ],
)
def test_a_file_that_cannot_be_checked_fails_the_job(
    claimed, rows, write, answer, tmp_path, tmp_path_factory, name, column, message
):
    write(rows(12))
    (tmp_path / "data" / "text.parquet").write_bytes(b"PK not parquet")
    outside = tmp_path_factory.mktemp("outside") / "data.parquet"
    outside.write_bytes((tmp_path / "data" / "data.parquet").read_bytes())
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "data.parquet").symlink_to(outside)
    bench = claimed(tmp_path / name, column)

    with pytest.raises(JobError, match=message) as failure:
        check_dataset(bench)

    assert "person-" not in str(failure.value)
    assert answer(bench) == (None, None, None)


def test_a_file_that_changes_meanwhile_fails_the_job(claimed, rows, write, answer, monkeypatch):
    def changing(source):
        yield from sample_ids(source)
        write(rows(13))

    monkeypatch.setattr(checking, "sample_ids", changing)
    bench = claimed(write(rows(12)))

    with pytest.raises(JobError, match="changed while it was read"):
        check_dataset(bench)

    assert answer(bench) == (None, None, None)


def test_a_job_that_is_somebody_elses_stores_nothing(claimed, rows, write, answer, sync_sessions):
    bench = claimed(write(rows(12)))
    with sync_sessions.begin() as session:
        session.execute(update(Job).values(attempt=Job.attempt + 1))

    with pytest.raises(LeaseLost):
        check_dataset(bench)

    assert answer(bench) == (None, None, None)


def test_no_id_of_the_file_is_stored_or_logged(
    own_database_url, owner_url, bury, rows, write, tmp_path, monkeypatch, capfd
):
    path = write(rows(12))
    with open_database(owner_url) as session:
        bury(session, "person-3")
        claims = [claim(session, path, column) for column in ("id", "pixels")]
        session.commit()
    monkeypatch.setenv("LETHE_DATABASE_URL", own_database_url)
    monkeypatch.setenv("LETHE_BROKER_URL", "redis://localhost:1/0")
    monkeypatch.setenv("LETHE_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("LETHE_DATA_ROOTS", json.dumps([str(tmp_path)]))

    for held in claims:
        child = get_context("spawn").Process(
            target=main, args=(str(held.job_id), held.attempt, held.kind)
        )
        child.start()
        child.join()
        assert child.exitcode == 0
    logged = "".join(capfd.readouterr())

    with open_database(own_database_url) as session:
        sound, broken = (session.get_one(Job, held.job_id) for held in claims)
        positions = session.scalars(select(DatasetCheck.positions).filter_by(job_id=sound.id))
        assert positions.one() == [3]
        assert (sound.failure, broken.failure["kind"]) == (None, "input")
        stored = [
            line
            for table in Base.metadata.tables
            for line in session.scalars(text(f"SELECT to_jsonb({table})::text FROM {table}"))
        ]
    assert "job.failed" in logged
    assert "person-" not in logged
    assert not any("person-" in line for line in stored)


def test_a_file_that_may_be_parquet_and_is_not_read_fails_the_check(claimed, rows, write):
    path = write(rows(12))
    (path.parent / "more.parq").touch()

    with pytest.raises(JobError, match=r"were not read: more\.parq\. Rename them"):
        check_dataset(claimed(path.parent))


def test_nested_files_are_checked(claimed, rows, write, answer):
    write(rows(3, id=["somebody", "person-3", "else"]), "a=1/c.parquet")
    bench = claimed(write(rows(2), "b.PARQUET").parent)

    check_dataset(bench)

    assert answer(bench) == (5, 1, [1])
