"""What goes with a deleted model or dataset besides files, and the evidence that it is gone."""

from typing import Any

from sqlalchemy import delete, exists, func, select
from sqlalchemy.orm import Session

from domain import erasure, former, jobs, trail
from domain.errors import StoreUnwritable
from domain.states import OPEN_JOBS, JobKind, RegistrationStatus, RowsStatus
from domain.tables import (
    Dataset,
    DeletionRequest,
    FormerSample,
    Job,
    MembershipStatistics,
    Model,
    ModelVersion,
    NearDuplicate,
    OutOfSamplePrediction,
    PooledStatistic,
    ReferenceTables,
    Sample,
)
from domain.version_events import DatasetPurged, ModelPurged

OF_MODEL: tuple[Any, ...] = (
    OutOfSamplePrediction,
    MembershipStatistics,
    NearDuplicate,
    PooledStatistic,
    ReferenceTables,
)
"""Tables with ids of a model's samples, or with what was learned from them."""


def finish(session: Session, job: Job) -> None:
    """Delete the rows of the job's model or dataset, if that was deleted, and record it."""
    if job.dataset_id is not None:
        _purge_dataset(session, job)
        return
    model = session.get_one(Model, job.model_id, with_for_update=True)
    if model.status is RegistrationStatus.DELETED and model.purged_at is None:
        _purge_model(session, job, model)


def _purge_model(session: Session, job: Job, model: Model) -> None:
    versions = session.execute(
        select(func.count(), func.count(ModelVersion.purged_at)).filter_by(model_id=model.id)
    ).one()
    if versions[0] != versions[1]:
        # A version's files may be read by a job that ends; the next attempt finds it ended.
        raise StoreUnwritable(f"{versions[0] - versions[1]} versions are still being read")
    rows = {}
    for table in OF_MODEL:
        gone = session.execute(delete(table).where(table.model_id == model.id))
        rows[table.__tablename__] = gone.rowcount  # type: ignore[attr-defined]  # SQLAlchemy
    model.purged_at = func.now()
    former.clean(session, model.dataset_id)
    purged = ModelPurged(job=job.id, versions=versions[0], rows=rows)
    trail.record(session, "worker", model.id, purged)
    _erase_what_it_held(session, model)


def _erase_what_it_held(session: Session, model: Model) -> None:
    """Have rows erased that stayed in the dataset's files because this model knew them."""
    held = exists().where(
        DeletionRequest.dataset_id == model.dataset_id,
        DeletionRequest.rows_status == RowsStatus.HELD,
    )
    erasing = exists().where(
        Job.dataset_id == model.dataset_id,
        Job.kind == JobKind.ERASE_ROWS,
        Job.status.in_(OPEN_JOBS),
    )
    wanted = select(Dataset.id).where(
        Dataset.id == model.dataset_id, erasure.wants_rows_erased(), held, ~erasing
    )
    for dataset_id in session.scalars(wanted).all():
        jobs.queue(session, JobKind.ERASE_ROWS, actor="worker", dataset_id=dataset_id)


def _purge_dataset(session: Session, job: Job) -> None:
    dataset = session.get_one(Dataset, job.dataset_id, with_for_update=True)
    if dataset.purged_at is not None:
        return
    gone = session.execute(delete(Sample).filter_by(dataset_id=dataset.id))
    session.execute(delete(FormerSample).filter_by(dataset_id=dataset.id))
    left = session.scalars(
        select(func.count()).select_from(Sample).filter_by(dataset_id=dataset.id)
    ).one()
    dataset.purged_at = func.now()
    purged = DatasetPurged(
        job=job.id,
        samples=gone.rowcount,  # type: ignore[attr-defined]  # SQLAlchemy
        left=left,
    )
    trail.record(session, "worker", dataset.id, purged)
