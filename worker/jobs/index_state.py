"""The job that reads another state of a dataset: what came, what went, and what is as it was.

The files are read and staged as for a first registration. Then one transaction compares them with
the index, by the digest of each sample's content, and changes only what is different. Models stay
with the state that they were trained on: `FormerSample` keeps what they know and the files no
longer have.
"""

from copy import deepcopy
from typing import Any
from uuid import UUID

from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from domain import former, jobs, requests, suppression, trail
from domain.errors import JobError
from domain.states import RegistrationStatus
from domain.tables import Dataset, DatasetState, Job, staged_samples
from domain.version_events import DatasetStateIndexed
from worker.data import staging
from worker.data.bad_rows import BadRows
from worker.data.reading import Read, read
from worker.data.source import open_new_state
from worker.engine import lease
from worker.engine.workbench import Workbench
from worker.jobs.index_dataset import reported

DIFFERS = """
old.content IS NOT NULL AND old.content <> new.content
OR old.label <> new.label OR old.split <> new.split
"""

COUNT = f"""
SELECT count(*) FILTER (WHERE old.sample_id IS NULL) AS added,
       count(*) FILTER (WHERE new.sample_id IS NULL) AS removed,
       count(*) FILTER (WHERE {DIFFERS}) AS changed,
       count(*) FILTER (WHERE old.content = new.content) AS unchanged,
       count(*) FILTER (WHERE old.sample_id = new.sample_id AND old.content IS NULL
                        AND NOT ({DIFFERS})) AS unknown,
       count(*) FILTER (WHERE old.sample_id = new.sample_id
                        AND old.group_digest IS DISTINCT FROM new.group_digest) AS regrouped
FROM (SELECT * FROM samples WHERE dataset_id = :dataset_id) old
FULL JOIN (SELECT * FROM staged_samples WHERE usable) new USING (sample_id)
"""  # noqa: S608  # from these texts alone
"""`unknown` are samples that an older release indexed, without a digest: they count as unchanged
where label and split are."""

LEAVING = f"""
INSERT INTO former_samples AS known (
    dataset_id, sample_id, since, removed_in, content, group_digest)
SELECT dataset_id, old.sample_id, old.since, :state, old.content, old.group_digest
FROM samples old LEFT JOIN (SELECT * FROM staged_samples WHERE usable) new USING (sample_id)
WHERE dataset_id = :dataset_id AND old.split = 'train'
  AND (new.sample_id IS NULL OR {DIFFERS})
ON CONFLICT (dataset_id, sample_id) DO UPDATE
SET since = least(known.since, excluded.since), removed_in = excluded.removed_in, content = NULL,
    group_digest = coalesce(excluded.group_digest, known.group_digest)
"""  # noqa: S608  # from these texts alone

GONE = """
DELETE FROM samples old WHERE dataset_id = :dataset_id AND NOT EXISTS (
    SELECT FROM staged_samples new WHERE new.sample_id = old.sample_id AND usable)
"""

CHANGED = f"""
UPDATE samples old
SET position = new.position, label = new.label, split = new.split, content = new.content,
    group_digest = new.group_digest,
    since = CASE WHEN {DIFFERS} THEN :state ELSE old.since END
FROM staged_samples new
WHERE dataset_id = :dataset_id AND new.sample_id = old.sample_id AND usable
  AND (old.position <> new.position OR old.content IS DISTINCT FROM new.content
       OR old.group_digest IS DISTINCT FROM new.group_digest OR {DIFFERS})
"""  # noqa: S608  # from these texts alone

ADDED = """
INSERT INTO samples (dataset_id, sample_id, position, label, split, group_digest, content, since)
SELECT :dataset_id, new.sample_id, position, label, split, new.group_digest, new.content,
       coalesce(back.since, :state)
FROM staged_samples new LEFT JOIN former_samples back
     ON back.dataset_id = :dataset_id AND back.sample_id = new.sample_id
        AND back.content = new.content
WHERE usable AND NOT EXISTS (
    SELECT FROM samples old WHERE dataset_id = :dataset_id AND old.sample_id = new.sample_id)
"""
"""What comes back as it was is what models that were trained before have learned from."""

BACK = """
DELETE FROM former_samples back USING samples now
WHERE back.dataset_id = :dataset_id AND now.dataset_id = :dataset_id
  AND now.sample_id = back.sample_id AND now.content = back.content AND now.since = back.since
"""


def index_state(bench: Workbench) -> None:
    """Make another state of the dataset the one that is indexed, or fail and leave it as it is.

    Raises:
        JobError: the files cannot be read as the dataset's definition says, or rows are bad.
        LeaseLost: another worker has the job.
    """
    for attempt in bench.transaction():
        with attempt as session:
            job = session.get_one(Job, bench.claim.job_id)
            wanted = session.scalars(select(DatasetState).filter_by(job_id=job.id)).one()
            dataset = session.get_one(Dataset, wanted.dataset_id)
    opened = open_new_state(bench, dataset, wanted.uri)
    with read(bench, dataset, *opened, again="the state") as found:
        bench.report("comparing with what is indexed", 0.9)
        for attempt in bench.transaction():
            with attempt as session:
                faults = deepcopy(found.faults)  # repeated, it finds the duplicates again
                staging.load(session, found.staged, staged_samples)
                staging.find_duplicates(session, faults)
                _store(session, bench, wanted, faults, found)


def _store(
    session: Session,
    bench: Workbench,
    wanted: DatasetState,
    faults: BadRows,
    found: Read,
) -> None:
    """Compare, and change what is different. The rows that others wait for are locked last."""
    dataset = session.get_one(Dataset, wanted.dataset_id)
    report, problem = reported(session, dataset, faults, found)
    if problem is not None:
        raise JobError(f"{problem} The dataset stays as it was indexed before.")
    state = dataset.state + 1
    given = {"dataset_id": dataset.id, "state": state}
    counts = dict(session.execute(text(COUNT), given).one()._mapping)
    returned, there = suppression.among_staged(session, dataset)
    if wanted.refuse_suppressed and returned:
        raise JobError(
            f"{returned} samples come back that may not be trained on: a model of the dataset has "
            f"forgotten them. `POST /v1/datasets/{dataset.name}/check` says which; take them out, "
            "or register the state without `refuse_suppressed`. The dataset stays as it was."
        )
    for statement in (LEAVING, GONE, CHANGED, ADDED, BACK):
        session.execute(text(statement), given)
    report["suppressed"] = suppression.elsewhere(session, dataset.id, staging.USABLE_IDS)
    requests.hold_planner(session)
    job = lease.hold(session, bench.claim)
    locked = session.get_one(Dataset, dataset.id, with_for_update=True, populate_existing=True)
    if locked.state != state - 1:
        raise JobError("Another state of the dataset was indexed meanwhile; register it again.")
    still_known = former.settle(session, locked.id)
    locked.state, locked.uri, locked.report, locked.files = state, wanted.uri, report, found.files
    locked.ready_at = func.now()
    row = session.get_one(DatasetState, wanted.id)
    row.status, row.number, row.ready_at = RegistrationStatus.READY, state, func.now()
    row.found = {
        **counts,
        "suppressed_returned": returned,
        "suppressed_still_there": there,
        "still_known": still_known,
    }
    _tell(session, locked.id, job.id, state, row.found)
    jobs.complete(session, job, actor="worker")


def _tell(
    session: Session, dataset_id: UUID, job_id: UUID, state: int, found: dict[str, Any]
) -> None:
    trail.record(
        session, "worker", dataset_id,
        DatasetStateIndexed(
            job=job_id, state=state, added=found["added"], removed=found["removed"],
            changed=found["changed"], unchanged=found["unchanged"] + found["unknown"],
            regrouped=found["regrouped"], suppressed_returned=found["suppressed_returned"],
            still_known=sum(found["still_known"].values()),
        ),
    )  # fmt: skip
