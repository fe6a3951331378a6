"""Rows of forgotten samples are deleted from the files, and the index follows them."""

import json
import os
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sqlalchemy import select, update

from domain import jobs, trail
from domain.errors import JobError, LeaseLost
from domain.events import RequestCompleted
from domain.states import JobKind, JobStatus, RegistrationStatus, RequestStatus
from domain.tables import AuditEvent, Dataset, Job, Sample
from tests import factories
from worker.data import parquet_rewrite
from worker.engine import lease
from worker.engine.workbench import Workbench
from worker.housekeeping import planner
from worker.jobs import erase_rows as erasing
from worker.jobs.erase_rows import erase_rows
from worker.jobs.index_dataset import index_dataset
from worker.store.artifacts import digest_of

GONE = ["person-0", "person-5", "person-6", "person-23"]


@pytest.fixture
def files(rows, write):
    """Two files of twelve rows in row groups of four, compressed in two ways."""
    how = {"row_group_size": 4, "compression": {"id": "snappy", "pixels": "zstd"}}
    table = pa.table(rows(24)).replace_schema_metadata({"kept": "as it was"})
    return [write(table.slice(12 * n, 12), f"part-{n}.parquet", **how) for n in (0, 1)]


@pytest.fixture
def dataset(files, register, bench_for, definition, refreshed):
    asked = {**definition, "erase": {"parquet": True}}
    dataset = register(files[0].parent, definition=asked)
    index_dataset(bench_for(dataset))
    return refreshed(dataset)


@pytest.fixture
def add_model(sync_sessions, dataset):
    """A model that has forgotten these."""

    def add(name, *ids, **columns):
        model = factories.model(dataset, name=name, **columns)
        job = factories.job(model_id=model.id, finished=True)
        with sync_sessions.begin() as session:
            for row in (model, job):
                session.add(row)
                session.flush()
            key = dataset.tombstone_key
            session.add_all(factories.tombstone(model, job, each, key=key) for each in ids)
        return model

    return add


@pytest.fixture
def claimed(sync_sessions, dataset, workbench):
    """A workbench with a claimed job that erases."""

    def claim(job_id=None):
        with sync_sessions.begin() as session:
            if job_id is None:
                job = Job(kind=JobKind.ERASE_ROWS, dataset_id=dataset.id)
                session.add(job)
                session.flush()
                job_id = job.id
            held = lease.claim(session, job_id, worker="test", lease=timedelta(minutes=5))
        return workbench(held)

    return claim


@pytest.fixture
def erased(sync_sessions):
    """What the audit trail says."""

    def read():
        with sync_sessions.begin() as session:
            return list(session.scalars(select(AuditEvent).filter_by(event="dataset.erased")))

    return read


def ids_in(files):
    return [name for file in files for name in pq.read_table(file)["id"].to_pylist()]


def positions(sessions, dataset):
    with sessions.begin() as session:
        rows = session.execute(
            select(Sample.sample_id).filter_by(dataset_id=dataset.id).order_by(Sample.position)
        )
        places = session.scalars(select(Sample.position).filter_by(dataset_id=dataset.id))
        return [row.sample_id for row in rows], sorted(places)


def contents(files):
    return [file.read_bytes() for file in files]


def assert_in_step(sessions, dataset, files):
    stored, places = positions(sessions, dataset)
    assert stored == ids_in(files)
    assert places == list(range(len(stored)))


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


def test_a_file_that_changed_since_it_was_indexed_is_left_alone(
    dataset, files, add_model, claimed, erased
):
    add_model("a", *GONE)
    os.utime(files[1])
    before = contents(files)

    with pytest.raises(JobError, match="changed since it was indexed"):
        erase_rows(claimed())

    assert contents(files) == before
    assert erased() == []


def test_a_file_that_changes_meanwhile_is_not_replaced_nor_any_other(
    sync_sessions, dataset, files, add_model, claimed, monkeypatch
):
    add_model("a", *GONE)
    changed = []

    def report(self, phase, progress):
        if phase == "replacing the files":
            os.utime(files[1])
            changed.extend(contents(files))

    monkeypatch.setattr(Workbench, "report", report)

    with pytest.raises(JobError, match="changed while it was rewritten"):
        erase_rows(claimed())

    assert contents(files) == changed
    assert sorted(files[0].parent.iterdir()) == sorted(files)
    assert_in_step(sync_sessions, dataset, files)


def test_an_attempt_that_dies_between_files_and_rows_is_repeated_to_the_same_end(
    sync_sessions, dataset, files, add_model, claimed, erased, monkeypatch
):
    add_model("a", *GONE)
    bench = claimed()
    digests = [digest_of(file) for file in files]

    def die(*_):
        raise SystemExit

    with monkeypatch.context() as killed:
        killed.setattr(erasing, "load", die)
        with pytest.raises(SystemExit):
            erase_rows(bench)
    assert len(ids_in(files)) == 20
    assert len(positions(sync_sessions, dataset)[0]) == 24
    with sync_sessions.begin() as session:
        jobs.release(session, lease.hold(session, bench.claim), actor="worker", why="it died")

    erase_rows(claimed(bench.claim.job_id))

    assert_in_step(sync_sessions, dataset, files)
    [event] = erased()
    assert event.data["samples"] == 4
    assert [file["before_sha256"] for file in event.data["files"]] == digests
    assert [file["after_sha256"] for file in event.data["files"]] == [
        digest_of(file) for file in files
    ]


def test_so_is_one_that_dies_between_two_files(
    sync_sessions, dataset, files, add_model, claimed, erased, monkeypatch
):
    add_model("a", *GONE)
    bench = claimed()

    def replace_one_and_die(rewritten):
        rewritten[0].new.replace(rewritten[0].file)
        raise SystemExit

    with monkeypatch.context() as killed:
        killed.setattr(parquet_rewrite, "put_in_place", replace_one_and_die)
        with pytest.raises(SystemExit):
            erase_rows(bench)
    with sync_sessions.begin() as session:
        jobs.release(session, lease.hold(session, bench.claim), actor="worker", why="it died")

    erase_rows(claimed(bench.claim.job_id))

    assert len(ids_in(files)) == 20
    assert_in_step(sync_sessions, dataset, files)
    assert [len(event.data["files"]) for event in erased()] == [2]


def test_a_worker_that_lost_the_job_replaces_nothing(
    sync_sessions, dataset, files, add_model, claimed, monkeypatch
):
    add_model("a", *GONE)
    bench, before = claimed(), contents(files)

    def report(self, phase, progress):
        if phase == "replacing the files":
            with sync_sessions.begin() as session:
                session.execute(update(Job).filter_by(id=bench.claim.job_id).values(attempt=7))

    monkeypatch.setattr(Workbench, "report", report)

    with pytest.raises(LeaseLost):
        erase_rows(bench)

    assert contents(files) == before
    assert sorted(files[0].parent.iterdir()) == sorted(files)


def test_a_file_with_a_second_name_is_refused(dataset, files, add_model, claimed, tmp_path):
    add_model("a", *GONE)
    os.link(files[0], tmp_path / "a copy that costs nothing")
    before = contents(files)

    with pytest.raises(JobError, match="second name"):
        erase_rows(claimed())

    assert contents(files) == before


def test_where_no_new_file_can_be_written_nothing_changes(
    files, register, bench_for, definition, refreshed, tmp_path, sync_sessions, workbench
):
    long = files[0].rename(files[0].with_name(f"{'x' * 240}.parquet"))
    files[1].unlink()
    dataset = register(long, definition={**definition, "erase": {"parquet": True}})
    index_dataset(bench_for(dataset))
    before = long.read_bytes()
    new = parquet_rewrite.beside(long, "a-job")

    with pytest.raises(JobError, match="right to write"):
        parquet_rewrite.rewrite(long, "id", {"person-0"}, new)

    assert long.read_bytes() == before


def test_files_that_were_never_remembered_are_refused(
    sync_sessions, dataset, files, add_model, claimed
):
    add_model("a", *GONE)
    with sync_sessions.begin() as session:
        session.execute(update(Dataset).values(files=None))

    with pytest.raises(JobError, match="before its files were remembered"):
        erase_rows(claimed())


def plan(sessions):
    with sessions.begin() as session:
        planner.plan_erasures(session)
        return list(session.scalars(select(Job).filter_by(kind=JobKind.ERASE_ROWS)))


def complete_a_request(sessions, dataset):
    status = RequestStatus.COMPLETED
    request = factories.request(dataset, status=status, finished_at=datetime.now(UTC))
    with sessions.begin() as session:
        session.add(request)
        trail.record(session, "worker", request.id, RequestCompleted())


def test_a_completed_request_has_one_job_erase_and_the_next_one_another(
    sync_sessions, dataset, claimed
):
    assert plan(sync_sessions) == []
    complete_a_request(sync_sessions, dataset)
    complete_a_request(sync_sessions, dataset)

    [job] = plan(sync_sessions)
    assert job.dataset_id == dataset.id
    assert len(plan(sync_sessions)) == 1
    bench = claimed(job.id)
    complete_a_request(sync_sessions, dataset)  # it may have come too late for the job
    assert len(plan(sync_sessions)) == 1
    erase_rows(bench)
    [another] = {each.id for each in plan(sync_sessions)} - {job.id}
    erase_rows(claimed(another))
    assert len(plan(sync_sessions)) == 2


def test_where_nobody_asked_for_it_nothing_is_erased(sync_sessions, dataset, definition):
    with sync_sessions.begin() as session:
        session.execute(update(Dataset).values(definition=definition))
    complete_a_request(sync_sessions, dataset)

    assert plan(sync_sessions) == []


def test_a_job_whose_dataset_is_rewritten_meanwhile_knows_it(
    sync_sessions, dataset, add_model, claimed
):
    model = add_model("a")
    since = factories.NOW - timedelta(hours=1)
    with sync_sessions.begin() as session:
        reader = factories.job(model_id=model.id)
        session.add(reader)
        session.flush()
        assert not jobs.is_rewritten(session, reader, since=since)

    erase_rows(claimed())

    with sync_sessions.begin() as session:
        assert jobs.is_rewritten(session, reader, since=since)
        later = factories.NOW + timedelta(days=1)
        assert not jobs.is_rewritten(session, reader, since=later)
