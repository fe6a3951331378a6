"""Which rows of a Parquet file, or of a dataset under another name, were forgotten before."""

import os
import subprocess
import sys

import pytest
from sqlalchemy import select

from domain import sample_digests
from domain.errors import JobError, NotFound
from domain.tables import AuditEvent
from worker.jobs.index_dataset import index_dataset
from worker.suppressed import open_database, suppressed_in


def test_the_forgotten_ids_of_a_file_are_found(session, bury, write, rows):
    bury(session, "person-3", "person-7", "nobody")
    path = write(rows(12))

    assert suppressed_in(session, "digits", path, "id") == {"person-3", "person-7"}
    with pytest.raises(JobError, match="no column 'sample_id'"):
        suppressed_in(session, "digits", path, "sample_id")
    with pytest.raises(NotFound):
        suppressed_in(session, "nobody", path, "id")


def test_ids_that_are_numbers_are_read_as_text(session, bury, write):
    bury(session, "7")

    assert suppressed_in(session, "digits", write({"id": [6, 7, None]}), "id") == {"7"}


def test_ids_that_no_sample_can_have_are_passed_over(session, bury, write):
    bury(session, "person-3")
    path = write({"id": ["", "nul\0", "x" * 513, "person-3"]})

    assert suppressed_in(session, "digits", path, "id") == {"person-3"}


def test_the_command_prints_them_and_says_so_by_its_exit_code(
    own_database_url, owner_url, bury, write, rows
):
    with open_database(owner_url) as session:
        bury(session, "person-3")
        session.commit()
    environment = {**os.environ, "LETHE_DATABASE_URL": own_database_url}

    def run(*arguments):
        command = [sys.executable, "-m", "worker.suppressed", *map(str, arguments)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout

    path = write(rows(12))
    assert run("digits", path, "--column", "id") == (1, "person-3\n")
    assert run("digits", write(rows(2), "few.parquet"), "--column", "id") == (0, "")
    assert run("nobody", path, "--column", "id") == (2, "")
    assert run("digits", path) == (2, "")
    assert run("digits", "gone.parquet") == (2, "")


def test_a_dataset_under_another_name_is_flagged(
    sync_sessions, bury, write, rows, register, bench_for, refreshed
):
    with sync_sessions.begin() as session:
        bury(session, "person-3", "person-5", "nobody", name="old")
        bury(session, "somebody", name="older", tombstone_key=sample_digests.new_key())
    dataset = register(write(rows(12)))

    index_dataset(bench_for(dataset))

    assert refreshed(dataset).report["suppressed"] == {"old": 2}
    with sync_sessions.begin() as session:
        event = session.scalars(select(AuditEvent).filter_by(event="dataset.indexed")).one()

    assert event.data["suppressed"] == 2
