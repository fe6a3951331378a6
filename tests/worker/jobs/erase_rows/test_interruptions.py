"""Files that change meanwhile, and attempts that die or lose the job."""

import os

import pytest
from sqlalchemy import update

from domain import jobs
from domain.errors import JobError, LeaseLost
from domain.tables import Job
from tests.worker.jobs.erase_rows.files import GONE, assert_in_step, contents, ids_in, positions
from worker.data import parquet_rewrite
from worker.engine import lease
from worker.engine.workbench import Workbench
from worker.jobs import erase_rows as erasing
from worker.jobs.erase_rows import erase_rows
from worker.store.artifacts import digest_of


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
