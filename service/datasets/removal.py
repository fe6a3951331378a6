"""Deletes datasets. One function, one transaction."""

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from domain import jobs, trail
from domain.erasure import UNSETTLED
from domain.errors import InUse, no_such
from domain.states import OPEN_JOBS, JobKind, RegistrationStatus
from domain.tables import Dataset, DeletionRequest, Job, Model
from domain.version_events import DatasetDeleted
from service.datasets import operations
from service.datasets.schemas import DatasetRead
from service.deletion_requests.decisions import ADMIN
from service.dependencies import Sessions

NAMED = 5
"""Models that are named in a refusal."""


async def delete(sessions: Sessions, name: str) -> DatasetRead:
    """Take a dataset out of use, and have its index purged; once, however often it is asked.

    Raises:
        NotFound: there is no such dataset.
        InUse: a model, a job or a deletion request still needs it.
    """
    async with sessions.begin() as session:
        await session.run_sync(_delete, name)
    return await operations.get(sessions, name)


def _delete(session: Session, name: str) -> None:
    # Who registers a model on it holds the row, too.
    chosen = select(Dataset).filter_by(name=name).with_for_update()
    dataset = session.scalars(chosen).one_or_none()
    if dataset is None:
        raise no_such(f"dataset {name!r}", listed_at="/v1/datasets")
    if dataset.status is RegistrationStatus.DELETED:
        return
    _require_unused(session, dataset)
    dataset.status, dataset.failure = RegistrationStatus.DELETED, None
    dataset.deleted_at = func.now()
    job = jobs.queue(session, JobKind.PURGE, actor="api", dataset_id=dataset.id)
    trail.record(session, "api", dataset.id, DatasetDeleted(job=job.id, by=ADMIN))


def _require_unused(session: Session, dataset: Dataset) -> None:
    trained = session.scalars(
        select(Model.name)
        .where(Model.dataset_id == dataset.id, Model.purged_at.is_(None))
        .order_by(Model.name)
    ).all()
    if trained:
        more = f" and {len(trained) - NAMED} more" if len(trained) > NAMED else ""
        raise InUse(
            f"Models that are not purged were registered with the dataset {dataset.name!r}: "
            f"{', '.join(trained[:NAMED])}{more}. Delete them first, with "
            "`DELETE /v1/models/{name}`, and wait until they say `purged_at`."
        )
    job = session.scalars(
        select(Job)
        .where(Job.dataset_id == dataset.id, Job.status.in_(OPEN_JOBS))
        .order_by(Job.id)
        .limit(1)
    ).one_or_none()
    if job is not None:
        raise InUse(
            f"The job {job.id} ({job.kind}) works on the dataset {dataset.name!r}. Wait until it "
            f"has ended; `GET /v1/jobs/{job.id}` says how far it is."
        )
    rows = session.scalars(
        select(func.count())
        .select_from(DeletionRequest)
        .where(DeletionRequest.dataset_id == dataset.id, DeletionRequest.rows_status.in_(UNSETTLED))
    ).one()
    if rows:
        raise InUse(
            f"Rows of the samples of {rows} deletion requests are still to be erased from the "
            f"files of the dataset {dataset.name!r}. Wait for that, or have the failed job tried "
            "again; "
            "`rows` in `GET /v1/deletion-requests` says which it is."
        )
