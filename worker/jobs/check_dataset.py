"""The job that finds the rows of a Parquet file that may not be trained on. It stores no ids.

No transaction is open while the file is read: each batch of ids is one query.
"""

from collections.abc import Sequence
from time import monotonic

from sqlalchemy import select

from domain import jobs
from domain.errors import JobError
from domain.suppression import suppressed
from domain.tables import Dataset, DatasetCheck
from worker.data.parquet import Source
from worker.data.parquet_rewrite import Fingerprint, fingerprint
from worker.data.sample_ids import sample_ids
from worker.data.source import open_source
from worker.data.staging import REPORT_EVERY_S
from worker.engine import lease
from worker.engine.workbench import Workbench

KEPT = 100_000
"""The most positions that are stored; rows after them are only counted."""


def check_dataset(bench: Workbench) -> None:
    """Read the ids once, and store how many rows are suppressed and their positions.

    Raises:
        JobError: the file cannot be read, has no such column, or changed meanwhile.
        LeaseLost: another worker has the job.
    """
    for attempt in bench.transaction():
        with attempt as session:
            check = session.scalars(select(DatasetCheck).filter_by(job_id=bench.claim.job_id)).one()
            dataset = session.get_one(Dataset, check.dataset_id).name
    source = open_source(bench, check)
    before = _fingerprints(source)
    count, positions = _find(bench, dataset, source)
    if _fingerprints(source) != before:
        raise JobError(
            "The file changed while it was read; request the check again once the file is final."
        )
    for attempt in bench.transaction():
        with attempt as session:
            job = lease.hold(session, bench.claim)
            answered = session.get_one(DatasetCheck, check.id)
            answered.rows, answered.suppressed, answered.positions = source.rows, count, positions
            jobs.complete(session, job, actor="worker")


def _find(bench: Workbench, dataset: str, source: Source) -> tuple[int, list[int]]:
    """How many rows are suppressed, and the positions of the first of them."""
    count, positions = 0, list[int]()
    reported = monotonic()
    for first, ids in sample_ids(source):
        gone = _gone(bench, dataset, ids)
        found = [first + index for index, sample_id in enumerate(ids) if sample_id in gone]
        count += len(found)
        positions += found[: KEPT - len(positions)]
        if monotonic() - reported > REPORT_EVERY_S:
            reported = monotonic()
            bench.report("reading the ids", first / source.rows)
    return count, positions


def _gone(bench: Workbench, dataset: str, ids: Sequence[str | None]) -> set[str]:
    named = {sample_id for sample_id in ids if sample_id is not None}
    for attempt in bench.transaction():
        with attempt as session:
            gone = suppressed(session, dataset, named)
    return gone


def _fingerprints(source: Source) -> dict[str, Fingerprint]:
    return {str(file): fingerprint(file) for file in source.files}
