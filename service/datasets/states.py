"""Other states of datasets: registering them, and what was different. One function, one
transaction."""

from collections.abc import Sequence
from pathlib import Path
from uuid import UUID

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from domain import jobs, trail
from domain.errors import DatasetBusy, IdempotencyKeyReused, NotFound, NotReady, no_such
from domain.locations import allowed_path
from domain.states import OPEN_JOBS, JobKind, RegistrationStatus
from domain.tables import Dataset, DatasetState, Job
from domain.version_events import DatasetStateOffered
from service import deletion
from service.datasets.state_schemas import StateCreate, StateRead
from service.dependencies import Sessions

WRITERS = (JobKind.INDEX_STATE, JobKind.ERASE_ROWS)
"""Jobs that change the index of a dataset."""


async def register(
    sessions: Sessions, name: str, wanted: StateCreate, *, key: str, data_roots: Sequence[Path]
) -> StateRead:
    """Store another state and the job that reads it; once, however often it is sent.

    Raises:
        LocationRefused: the URI lies outside the allowed directories.
        NotFound: there is no such dataset.
        Deleted: it was.
        NotReady: its first state is not indexed.
        DatasetBusy: another job changes its index.
        IdempotencyKeyReused: the key already stands for another body.
    """
    if wanted.uri is not None:
        allowed_path(wanted.uri, data_roots)
    async with sessions.begin() as session:
        return await session.run_sync(_register, name, wanted, key)


async def get(sessions: Sessions, name: str, state_id: UUID) -> StateRead:
    """One state. Raises NotFound when the dataset has none with this id."""
    async with sessions.begin() as session:
        found = await session.execute(
            _states().where(Dataset.name == name, DatasetState.id == state_id)
        )
        row = found.one_or_none()
    if row is None:
        raise NotFound(
            f"The dataset {name!r} has no state {state_id}. Register one with "
            f"`POST /v1/datasets/{name}/states`."
        )
    return _read(*row)


def _register(session: Session, name: str, wanted: StateCreate, key: str) -> StateRead:
    chosen = select(Dataset).filter_by(name=name).with_for_update(key_share=True)
    dataset = session.scalars(chosen).one_or_none()
    if dataset is None:
        raise no_such(f"dataset {name!r}", listed_at="/v1/datasets")
    known = session.scalars(
        select(DatasetState).filter_by(dataset_id=dataset.id, idempotency_key=key)
    ).one_or_none()
    if known is not None:
        if known.fingerprint != wanted.fingerprint():
            raise IdempotencyKeyReused(
                "This key was sent before with another body. Use a new key for another state."
            )
        return _read(known, name)
    deletion.require_there(dataset)
    _require_free(session, dataset)
    job = jobs.queue(session, JobKind.INDEX_STATE, actor="api", dataset_id=dataset.id)
    row = DatasetState(
        dataset_id=dataset.id,
        job_id=job.id,
        idempotency_key=key,
        fingerprint=wanted.fingerprint(),
        uri=wanted.uri or dataset.uri,
        refuse_suppressed=wanted.refuse_suppressed,
    )
    session.add(row)
    session.flush()
    session.refresh(row)
    offered = DatasetStateOffered(state=row.id, job=job.id)
    trail.record(session, "api", dataset.id, offered)
    return _read(row, name)


def _require_free(session: Session, dataset: Dataset) -> None:
    if dataset.status is not RegistrationStatus.READY:
        raise NotReady(
            f"The dataset {dataset.name!r} is {dataset.status}, and only one that is `ready` takes "
            f"another state; `GET /v1/datasets/{dataset.name}` says more."
        )
    job = session.scalars(
        select(Job)
        .where(Job.dataset_id == dataset.id, Job.kind.in_(WRITERS), Job.status.in_(OPEN_JOBS))
        .limit(1)
    ).one_or_none()
    if job is not None:
        raise DatasetBusy(
            f"The job {job.id} ({job.kind}) changes the index of the dataset {dataset.name!r}. "
            f"Wait until it has ended; `GET /v1/jobs/{job.id}` says how far it is."
        )


def _states() -> Select[DatasetState, str]:
    return select(DatasetState, Dataset.name).join(Dataset, Dataset.id == DatasetState.dataset_id)


def _read(row: DatasetState, dataset: str) -> StateRead:
    return StateRead.model_validate(
        {
            "id": row.id,
            "dataset": dataset,
            "status": row.status,
            "job_id": row.job_id,
            "uri": row.uri,
            "refuse_suppressed": row.refuse_suppressed,
            "number": row.number,
            "found": row.found,
            "failure": row.failure,
            "created_at": row.created_at,
            "ready_at": row.ready_at,
        }
    )
