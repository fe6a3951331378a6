"""The job that reads a dataset once: checks every row and keeps where each sample is.

The files are read, checked and staged with no transaction open; then one transaction loads what
was staged, finds duplicates and keeps the rest.
"""

import tempfile
from collections.abc import Sequence
from time import monotonic
from typing import IO, Any, cast

import numpy as np
import psycopg
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
from psycopg import sql
from sqlalchemy import delete, func, text
from sqlalchemy.orm import Session

from domain import suppression, trail
from domain.errors import JobError, LocationRefused
from domain.locations import allowed_path
from domain.states import RegistrationStatus, Split
from domain.tables import Dataset, DatasetCheck, Job, Sample
from worker.data import decode
from worker.data.bad_rows import BadRows, usable_ids
from worker.data.parquet import Source
from worker.data.parquet_rewrite import Fingerprint, fingerprint
from worker.engine import lease
from worker.engine.workbench import Workbench

HIGHEST_LABEL = 2**31 - 1
REPORT_EVERY_S = 2.0
BLOCK = 2**20
COLUMNS = "sample_id varchar, position bigint, label bigint, split varchar, usable boolean"

STAGED = pa.schema({
    "sample_id": pa.string(), "position": pa.int64(), "label": pa.int64(), "split": pa.string(),
    "usable": pa.bool_(),
})  # fmt: skip
"""A line of the staged file: every row whose id can be stored, the unusable ones as well,
because an id they share with a usable row makes that row ambiguous."""


def index_dataset(bench: Workbench) -> None:
    """Make the dataset ready, or fail with a report that says which rows are bad.

    Raises:
        JobError: the files cannot be read as the dataset's definition says.
        LeaseLost: the job is somebody else's by now.
    """
    with bench.sessions.begin() as session:
        job = session.get_one(Job, bench.claim.job_id)
        dataset = session.get_one(Dataset, job.dataset_id)
    source = open_source(bench, dataset)
    files = {str(file): fingerprint(file) for file in source.files}
    findings = BadRows()
    with tempfile.TemporaryFile() as staged:
        _stage(bench, source, dataset.definition, findings, staged)
        bench.report("storing the sample ids", 0.9)
        with bench.sessions.begin() as session:
            load(session, staged, "staged_samples", COLUMNS)
            _find_duplicates(session, findings)
            _store(session, bench, dataset.id, findings, source.rows, files)


def open_source(bench: Workbench, subject: Dataset | DatasetCheck) -> Source:
    """The files of a dataset, or those to check, if they lie where files may be read.

    Raises:
        JobError: they do not, or they are not as their definition says.
    """
    try:
        path = allowed_path(subject.uri, bench.settings.data_roots)
        source = Source.open(path, subject.definition)
        for file in source.files:  # links in a directory may lead out of it
            allowed_path(str(file), bench.settings.data_roots)
    except LocationRefused as error:
        raise JobError(error.detail) from error
    return source


def _stage(
    bench: Workbench,
    source: Source,
    definition: dict[str, Any],
    findings: BadRows,
    staged: IO[bytes],
) -> None:
    """Check every row, and write those with a usable id to the staged file, as CSV."""
    length: int | None = None
    reported = monotonic()
    options = pa.csv.WriteOptions(include_header=False)
    with pa.csv.CSVWriter(kept_open(staged), STAGED, write_options=options) as writer:
        for first, batch in source.batches():
            if length is None:
                length = decode.array_length(batch["input"], source.input_shape)
            splits = _splits(batch["split"], definition["splits"])
            ids, bad_ids = usable_ids(batch["sample_id"])
            bad_rows = {
                **_bad_labels(batch["label"]),
                "split_unknown": _mask(splits.is_null()),
                **decode.bad_inputs(batch["input"], length),
            }
            usable = findings.add(first, ids, bad_ids | bad_rows)
            position = pa.array(np.arange(first, first + batch.num_rows))
            columns = [ids, position, batch["label"], splits, pa.array(usable)]
            writer.write_batch(
                pa.RecordBatch.from_arrays(columns, schema=STAGED).filter(ids.is_valid())
            )
            if monotonic() - reported > REPORT_EVERY_S:
                reported = monotonic()
                bench.report("checking the rows", 0.9 * first / source.rows)


def kept_open(file: IO[bytes]) -> pa.PythonFile:
    """Arrow's end of the file, whose closing leaves ours open."""
    return pa.PythonFile(open(file.fileno(), "wb", closefd=False), mode="w")


def _bad_labels(column: pa.Array) -> dict[str, decode.Mask]:
    labels = pc.fill_null(column, 0).to_numpy()
    return {
        "label_missing": _mask(column.is_null()),
        "label_out_of_range": (labels < 0) | (labels > HIGHEST_LABEL),
    }


def _splits(column: pa.Array, names: dict[str, str | None]) -> pa.Array:
    """What each row was used for, null where its value stands for nothing."""
    values = [str(name) for name in names.values() if name is not None]
    meanings = pa.array([split for split, name in names.items() if name is not None], pa.string())
    return meanings.take(pc.index_in(column, pa.array(values, pa.string())))


def _mask(column: pa.Array) -> decode.Mask:
    return cast("decode.Mask", column.to_numpy(zero_copy_only=False))


def load(session: Session, staged: IO[bytes], table: str, columns: str) -> None:
    """Bring a staged file of CSV into a temporary table, which lasts as long as the transaction."""
    session.execute(text(f"DROP TABLE IF EXISTS {table}"))
    session.execute(text(f"CREATE TEMPORARY TABLE {table} ({columns}) ON COMMIT DROP"))
    driver = cast("psycopg.Connection[Any]", session.connection().connection.driver_connection)
    into = sql.SQL("COPY {} FROM STDIN (FORMAT csv)").format(sql.Identifier(table))
    staged.seek(0)
    with driver.cursor() as cursor, cursor.copy(into) as copy:
        while block := staged.read(BLOCK):
            copy.write(block)


def _find_duplicates(session: Session, findings: BadRows) -> None:
    """Leave out all rows of an id that occurs more than once: none of them is the right one."""
    session.execute(
        text(
            "CREATE TEMPORARY TABLE duplicates ON COMMIT DROP AS SELECT sample_id "
            "FROM staged_samples GROUP BY sample_id HAVING count(*) > 1"
        )
    )
    named = "FROM staged_samples JOIN duplicates USING (sample_id)"
    count, newly_bad = session.execute(
        text(f"SELECT count(*), count(*) FILTER (WHERE usable) {named}")
    ).one()
    examples = session.execute(
        text(f"SELECT position, sample_id {named} ORDER BY position LIMIT 10")
    ).all()
    findings.add_found("sample_id_duplicate", count, newly_bad, examples)
    session.execute(
        text(
            "UPDATE staged_samples SET usable = false FROM duplicates "
            "WHERE staged_samples.sample_id = duplicates.sample_id"
        )
    )
    session.execute(text("DROP TABLE duplicates"))


def _store(
    session: Session,
    bench: Workbench,
    dataset_id: Any,
    findings: BadRows,
    rows: int,
    files: dict[str, Fingerprint],
) -> None:
    """Write the outcome: the report always, the samples if the dataset can be used."""
    counts = session.execute(
        text(
            "SELECT split, label, count(*) FROM staged_samples WHERE usable "
            "GROUP BY split, label ORDER BY split, label"
        )
    ).all()
    job = lease.hold(session, bench.claim)
    dataset = session.get_one(Dataset, dataset_id)
    dataset.report = findings.report(rows, [(split, label, n) for split, label, n in counts])
    session.execute(delete(Sample).filter_by(dataset_id=dataset_id))
    problem = _problem(dataset, findings)
    if problem is not None:
        lease.fail(session, job, kind="input", reason=problem)
        return
    session.execute(
        text(
            "INSERT INTO samples (dataset_id, sample_id, position, label, split) "
            "SELECT :dataset_id, sample_id, position, label, split "
            "FROM staged_samples WHERE usable"
        ),
        {"dataset_id": dataset_id},
    )
    suppressed = suppression.elsewhere(session, dataset_id)
    dataset.report = {**dataset.report, "suppressed": suppressed}
    dataset.status, dataset.failure, dataset.files = RegistrationStatus.READY, None, files
    dataset.ready_at = func.now()
    trail.record(
        session, "worker", "dataset.indexed", dataset_id,
        rows=rows, samples=dataset.report["samples"], bad_rows=findings.rows,
        suppressed=sum(suppressed.values()),
    )  # fmt: skip
    lease.complete(session, job)


def _problem(dataset: Dataset, findings: BadRows) -> str | None:
    """Why the dataset cannot be used, for people; None when it can."""
    report: dict[str, Any] = dataset.report or {}
    if findings.rows and dataset.definition.get("bad_rows", "refuse") == "refuse":
        return (
            f"{findings.rows} of {report['rows']} rows are bad ({findings.summary()}); see the "
            "dataset's report for examples. Correct them, or register the dataset with "
            'bad_rows "skip" to leave them out.'
        )
    lacking: Sequence[Split] = [
        split for split in (Split.TRAIN, Split.HOLDOUT) if not report["samples"][split.value]
    ]
    if lacking:
        return (
            f"No usable row is in the split {' and '.join(lacking)}; unlearning needs training "
            "samples, and hold-out samples to compare with. Correct the names of the splits."
        )
    return None
