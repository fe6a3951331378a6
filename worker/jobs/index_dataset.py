"""The job that reads a dataset once: checks every row and stores the position of each sample.

The files are read, checked and staged with no transaction open; then one transaction loads the
staged rows, finds duplicates and stores the rest.
"""

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

from sqlalchemy import delete, func, text
from sqlalchemy.orm import Session

from domain import jobs, suppression, trail
from domain.events import DatasetIndexed
from domain.states import RegistrationStatus, Split
from domain.tables import Dataset, Job, Sample, staged_samples
from worker.data import group_column, staging
from worker.data.bad_rows import BadRows
from worker.data.reading import Read, read
from worker.data.source import open_listed
from worker.engine import lease
from worker.engine.workbench import Workbench

STORE = text(
    "INSERT INTO samples (dataset_id, sample_id, position, label, split, group_digest, content) "
    "SELECT DISTINCT ON (sample_id) :dataset_id, sample_id, position, label, split, group_digest, "
    "content FROM staged_samples WHERE usable ORDER BY sample_id"
)
"""In the order of the primary key, its entries come one after the other. In the order of the files
each would hit a page at random, of more pages than Postgres keeps in memory. An id that occurs more
than once is stored once: fewer rows are then stored than staged."""


def index_dataset(bench: Workbench) -> None:
    """Make the dataset ready, or fail with a report that says which rows are bad.

    Raises:
        JobError: the files cannot be read as the dataset's definition says.
        LeaseLost: another worker has the job.
    """
    for attempt in bench.transaction():
        with attempt as session:
            job = session.get_one(Job, bench.claim.job_id)
            dataset = session.get_one(Dataset, job.dataset_id)
    with read(bench, dataset, *open_listed(bench, dataset), again="the dataset") as found:
        bench.report("storing the sample ids", 0.9)
        for attempt in bench.transaction():
            with attempt as session:
                faults = deepcopy(found.faults)  # repeated, it finds the duplicates again
                staging.load(session, found.staged, staged_samples)
                _store(session, bench, dataset.id, faults, found)


def _store(
    session: Session,
    bench: Workbench,
    dataset_id: Any,
    faults: BadRows,
    found: Read,
) -> None:
    """Write the outcome: the report always, the samples if the dataset can be used.

    Rows without a fault are stored at once, as most often nothing is wrong: whether an id occurs
    twice is seen then, and looked into only if so.

    The job's row is locked last, when all that takes long is done: whoever wants to renew its lease
    or to cancel it waits until the transaction ends.
    """
    known = session.get_one(Dataset, dataset_id)
    old, new = delete(Sample).filter_by(dataset_id=dataset_id), {"dataset_id": dataset_id}
    session.execute(old)
    stored = False
    if not faults.rows:
        stored = session.execute(STORE, new).rowcount == found.rows  # type: ignore[attr-defined]
    if not stored:
        staging.find_duplicates(session, faults)
    report, problem = reported(session, known, faults, found)
    if problem is not None or not stored:
        session.execute(old)
    if problem is None:
        if not stored:
            session.execute(STORE, new)
        report["suppressed"] = suppression.elsewhere(session, dataset_id, staging.USABLE_IDS)
    job = lease.hold(session, bench.claim)
    dataset = session.get_one(Dataset, dataset_id)
    dataset.report = report
    if problem is not None:
        jobs.fail(session, job, actor="worker", kind="input", reason=problem)
        return
    dataset.status, dataset.failure, dataset.files = RegistrationStatus.READY, None, found.files
    dataset.ready_at = func.now()
    trail.record(
        session, "worker", dataset_id,
        DatasetIndexed(
            rows=found.rows, samples=report["samples"], bad_rows=faults.rows,
            suppressed=sum(report["suppressed"].values()),
        ),
    )  # fmt: skip
    jobs.complete(session, job, actor="worker")


def reported(
    session: Session, dataset: Dataset, faults: BadRows, found: Read
) -> tuple[dict[str, Any], str | None]:
    """What is reported of the staged rows, and why the dataset cannot be used, if so."""
    counts = session.execute(
        text(
            "SELECT split, label, count(*) FROM staged_samples WHERE usable "
            "GROUP BY split, label ORDER BY split, label"
        )
    ).all()
    by_label = [(split, label, n) for split, label, n in counts]
    report = {**faults.report(found.rows, by_label), **found.told}
    if dataset.definition["columns"].get("group") is not None:
        with staging.in_one_process(session):
            report["groups"] = group_column.report(session, sum(report["samples"].values()))
    return report, _problem(report, dataset.definition, faults)


def _problem(report: dict[str, Any], definition: dict[str, Any], faults: BadRows) -> str | None:
    """Why the dataset cannot be used, in words; None when it can."""
    if faults.rows and definition.get("bad_rows", "refuse") == "refuse":
        pad = "input_wrong_length" in report["bad_rows"]
        advice = "".join(
            f" {group_column.ADVICE[kind]}"
            for kind in report["bad_rows"]
            if kind in group_column.ADVICE
        )
        return (
            f"{faults.rows} of {report['rows']} rows are bad ({faults.summary()}); see the "
            "dataset's report for examples. Correct them"
            f"{', by padding sequences to one length' if pad else ''}, or register the dataset "
            'with bad_rows "skip" to leave them out.'
            f"{advice}"
        )
    lacking: Sequence[Split] = [
        split for split in (Split.TRAIN, Split.HOLDOUT) if not report["samples"][split.value]
    ]
    if lacking:
        return (
            f"No usable row is in the split {' and '.join(lacking)}; unlearning needs training "
            "samples, and hold-out samples to compare them with. Correct the names of the splits."
        )
    if definition.get("leaking_groups", "report") == "refuse":
        leaks = group_column.leaks(report["groups"])
        if leaks is not None:
            return (
                f"{leaks}. Move each group to one split, and train without the groups of the "
                'others; or register the dataset with leaking_groups "report".'
            )
    return None
