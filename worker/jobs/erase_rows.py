"""The job that deletes rows of forgotten samples from a dataset's Parquet files.

Positions follow the files: they are read again from the new files, never decremented. So an attempt
that was killed between replacing the files and updating the database can be repeated, with the same
result.
"""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any
from uuid import UUID

import numpy as np
import pyarrow as pa
import pyarrow.csv
from sqlalchemy import func, literal, select, text
from sqlalchemy.orm import Session

from domain import erasure, jobs, lifting, sample_digests, trail
from domain.errors import JobError
from domain.events import DatasetErased
from domain.states import JobKind, JobStatus, RegistrationStatus
from domain.tables import Dataset, Job, Model, Sample, Tombstone, staged_positions
from worker.data import files as dataset_files
from worker.data import parquet_rewrite
from worker.data.bad_rows import usable_ids
from worker.data.files import Listing
from worker.data.parquet import CHANGED, Source, opened
from worker.data.parquet_rewrite import Fingerprint, Rewritten
from worker.data.source import open_listed
from worker.data.staging import kept_open, load
from worker.engine import lease
from worker.engine.workbench import Workbench

AT_ONCE = 10_000
STAGED = pa.schema({"sample_id": pa.string(), "position": pa.int64()})
UNKNOWN = (
    "The dataset was indexed before its files were recorded, so changes to them cannot be "
    "detected. Register it again under another name to have rows erased."
)

Planned = dict[str, Any]
"""The planned replacement of a file, as kept in the job's configuration."""


def erase_rows(bench: Workbench) -> None:
    """Delete the rows of every sample that all models of the dataset have forgotten.

    Raises:
        JobError: a file changed, may not be written, or is outside the allowed locations; no file
            was replaced.
        LeaseLost: another worker has the job.
    """
    for attempt in bench.transaction():
        with attempt as session:
            job = session.get_one(Job, bench.claim.job_id)
            dataset = session.get_one(Dataset, job.dataset_id)
            asked = erasure.considered(session, dataset.id)  # before it is asked what is forgotten
            gone = erasable(session, dataset)
            planned = _planned(session, dataset.id)
    if not gone and not planned:
        _finish_without(bench, asked)
        return
    source, listing = open_listed(bench, dataset)
    files = source.files
    _require_known(bench, listing)
    done = _check_unchanged(dataset, files, planned)
    column = dataset.definition["columns"]["sample_id"]
    with _rewriting(bench, files, column, gone) as rewritten, tempfile.TemporaryFile() as staged:
        _plan(bench, done, rewritten)
        bench.report("reading the new positions", 0.7)
        places = {each.file: each.new for each in rewritten}
        _stage(column, [places.get(file.resolve(), file) for file in files], staged)
        bench.report("replacing the files", 0.9)
        for attempt in bench.transaction():
            with attempt as session:
                job = lease.hold(session, bench.claim)
                parquet_rewrite.put_in_place(rewritten)
                load(session, staged, staged_positions)
                session.execute(text("ANALYZE staged_positions"))
                removed = _follow(session, dataset.id)
                _record(session, dataset.id, files, [*done, *map(_as_planned, rewritten)], removed)
                erasure.settle(session, job, asked, actor="worker")
                jobs.complete(session, job, actor="worker")


def erasable(session: Session, dataset: Dataset) -> set[str]:
    """The ids of samples that every model of the dataset has forgotten, and that are suppressed.

    A model whose registration is pending has forgotten nothing yet. One that was deleted knows
    nothing; where all are, what any of them had forgotten is meant.
    """
    known = select(Model.id, Model.status).where(
        Model.dataset_id == dataset.id, Model.status != RegistrationStatus.FAILED
    )
    every = {model_id: status for model_id, status in session.execute(known)}
    models = [each for each in every if every[each] is not RegistrationStatus.DELETED]
    if not every:
        return set()
    everywhere = set(
        session.scalars(
            select(Tombstone.digest)
            .where(
                Tombstone.model_id.in_(models or every),
                ~lifting.is_lifted(literal(dataset.id), Tombstone.digest),
            )
            .group_by(Tombstone.digest)
            .having(func.count() >= len(models))
        )
    )
    ids = select(Sample.sample_id).filter_by(dataset_id=dataset.id)
    key = dataset.tombstone_key
    return {
        sample_id
        for sample_id in session.scalars(ids.execution_options(yield_per=AT_ONCE))
        if sample_digests.digest(key, sample_id) in everywhere
    }


def _planned(session: Session, dataset_id: UUID) -> list[Planned]:
    """The replacements that unfinished attempts may have put in place."""
    jobs = session.scalars(
        select(Job).where(
            Job.dataset_id == dataset_id,
            Job.kind == JobKind.ERASE_ROWS,
            Job.status != JobStatus.COMPLETED,
        )
    )
    return [planned for job in jobs if job.config for planned in job.config["files"]]


def _check_unchanged(
    dataset: Dataset, files: Sequence[Path], planned: Sequence[Planned]
) -> list[Planned]:
    """The replacements already in place. Raises JobError unless every file is as it was indexed, or
    as an earlier attempt left it."""
    if dataset.files is None:
        raise JobError(UNKNOWN)
    if {str(file) for file in files} != dataset.files.keys():
        raise JobError(CHANGED)
    done = []
    for file in files:
        now = parquet_rewrite.fingerprint(file)
        if now == dataset.files[str(file)]:
            continue
        ours = next((each for each in planned if each["after"] == now), None)
        if ours is None:
            raise JobError(CHANGED)
        done.append(ours)
    return done


def _require_known(bench: Workbench, listing: Listing) -> None:
    """Raise JobError where files came to the directory, or were not looked for by an older release:
    forgotten samples may have rows there that nobody knows of."""
    if not listing.top.is_dir():
        return
    read = {each.path for each in listing.found}
    there = dataset_files.find(listing.top, bench.settings.data_roots).found
    more = [each.path for each in there if each.path not in read and _has_rows(each.path)]
    if more:
        named = ", ".join(str(path.relative_to(listing.top)) for path in more[:5])
        raise JobError(
            f"The dataset's directory has {len(more)} Parquet files that were not read when it was "
            f"indexed ({named}), and may hold rows of forgotten samples. Move them elsewhere, or "
            "register what is there now with `POST /v1/datasets/{name}/states`; nothing was "
            "replaced."
        )


def _has_rows(file: Path) -> bool:
    with opened(file) as parquet:
        return bool(parquet.metadata.num_rows)


@contextmanager
def _rewriting(
    bench: Workbench, files: Sequence[Path], column: str, gone: set[str]
) -> Iterator[list[Rewritten]]:
    """New files beside those that have rows to erase; what is not put in place is deleted."""
    rewritten = []
    places = [file.resolve() for file in files]  # a link would be replaced, not its target
    try:
        for number, file in enumerate(places):
            bench.report("rewriting files", 0.7 * number / len(places))
            parquet_rewrite.remove_unfinished(file)
            new = parquet_rewrite.beside(file, bench.claim.signature)
            without = parquet_rewrite.rewrite(file, column, gone, new)
            if without is not None:
                rewritten.append(without)
        yield rewritten
    finally:
        for file in places:
            parquet_rewrite.beside(file, bench.claim.signature).unlink(missing_ok=True)


def _plan(bench: Workbench, done: Sequence[Planned], rewritten: Sequence[Rewritten]) -> None:
    """Store the fingerprints of the new files before they are put in place, so that the next
    attempt recognises them."""
    for attempt in bench.transaction():
        with attempt as session:
            job = lease.hold(session, bench.claim)
            job.config = {"files": [*done, *map(_as_planned, rewritten)]}


def _as_planned(rewritten: Rewritten) -> Planned:
    return {k: v for k, v in asdict(rewritten).items() if k not in ("file", "new")}


def _stage(column: str, files: Sequence[Path], staged: IO[bytes]) -> None:
    """Write every id and the position it will have, as CSV."""
    first = 0
    options = pa.csv.WriteOptions(include_header=False)
    with pa.csv.CSVWriter(kept_open(staged), STAGED, write_options=options) as writer:
        for file in files:
            source = Source.open(file, {"columns": {"sample_id": column}})
            for start, batch in source.batches(("sample_id",)):
                ids, _ = usable_ids(batch["sample_id"])
                positions = pa.array(np.arange(batch.num_rows) + first + start)
                lines = pa.RecordBatch.from_arrays([ids, positions], schema=STAGED)
                writer.write_batch(lines.filter(ids.is_valid()))
            first += source.rows


def _follow(session: Session, dataset_id: UUID) -> int:
    """Delete the samples that are no longer in any file, update the positions of the others, and
    return how many were deleted."""
    removed = session.execute(
        text(
            "DELETE FROM samples WHERE dataset_id = :dataset_id AND NOT EXISTS (SELECT FROM "
            "staged_positions WHERE staged_positions.sample_id = samples.sample_id) RETURNING 1"
        ),
        {"dataset_id": dataset_id},
    ).all()
    session.execute(
        text(
            "UPDATE samples SET position = staged_positions.position FROM staged_positions "
            "WHERE dataset_id = :dataset_id AND samples.sample_id = staged_positions.sample_id "
            "AND samples.position <> staged_positions.position"
        ),
        {"dataset_id": dataset_id},
    )
    return len(removed)


def _record(
    session: Session,
    dataset_id: UUID,
    files: Sequence[Path],
    replaced: Sequence[Planned],
    removed: int,
) -> None:
    """Store the files' fingerprints, and record the erasure in the audit trail."""
    dataset = session.get_one(Dataset, dataset_id, with_for_update=True)
    dataset.files = fingerprints(files)
    told = ("before_sha256", "after_sha256", "rows_before", "rows_after")
    trail.record(
        session, "worker", dataset_id,
        DatasetErased(
            samples=removed, files=[{name: each[name] for name in told} for each in replaced]
        ),
    )  # fmt: skip


def fingerprints(files: Sequence[Path]) -> dict[str, Fingerprint]:
    """The fingerprint of each file, by path."""
    return {str(file): parquet_rewrite.fingerprint(file) for file in files}


def _finish_without(bench: Workbench, asked: Sequence[UUID]) -> None:
    for attempt in bench.transaction():
        with attempt as session:
            job = lease.hold(session, bench.claim)
            erasure.settle(session, job, asked, actor="worker")
            jobs.complete(session, job, actor="worker")
