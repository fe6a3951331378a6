"""Deletes models. One function, one transaction."""

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from domain import forgetting, jobs, trail
from domain.errors import InUse, no_such
from domain.requests import PLANNING_LOCK
from domain.states import (
    ENDED_REQUESTS,
    OPEN_JOBS,
    JobKind,
    RegistrationStatus,
    RequestStatus,
    VersionStatus,
)
from domain.tables import DeletionTarget, Job, Model, ModelVersion
from domain.version_events import ModelDeleted
from service.deletion_requests.decisions import ADMIN
from service.dependencies import Sessions
from service.models import operations
from service.models.schemas import ModelRead

ANSWERED = ENDED_REQUESTS - {RequestStatus.FAILED}


async def delete(sessions: Sessions, name: str) -> ModelRead:
    """Take a model out of use, and have all that was stored of it purged; once, however often it is
    asked.

    Raises:
        NotFound: there is no such model.
        InUse: a deletion request or a job still needs it.
    """
    async with sessions.begin() as session:
        await session.run_sync(_delete, name)
    return await operations.get(sessions, name)


def _delete(session: Session, name: str) -> None:
    # With the planner held off, nothing gets into a job. With the row locked no request comes in:
    # the database refuses one that has seen the model as it was.
    session.execute(select(func.pg_advisory_xact_lock(PLANNING_LOCK)))
    model = session.scalars(select(Model).filter_by(name=name).with_for_update()).one_or_none()
    if model is None:
        raise no_such(f"model {name!r}", listed_at="/v1/models")
    if model.status is RegistrationStatus.DELETED:
        return
    _require_unused(session, model)
    versions = session.scalars(
        select(ModelVersion).filter_by(model_id=model.id).order_by(ModelVersion.id)
        .with_for_update()
    ).all()  # fmt: skip
    for version in versions:
        if version.status is not VersionStatus.SUPERSEDED:
            forgetting.supersede(session, version, actor="api", at_once=True)
    model.status, model.failure = RegistrationStatus.DELETED, None
    model.deleted_at = func.now()
    job = jobs.queue(session, JobKind.PURGE, actor="api", model_id=model.id)
    deleted = ModelDeleted(job=job.id, versions=len(versions), by=ADMIN)
    trail.record(session, "api", model.id, deleted)


def _require_unused(session: Session, model: Model) -> None:
    waiting = session.execute(
        select(DeletionTarget.status, func.count())
        .where(DeletionTarget.model_id == model.id, DeletionTarget.status.not_in(ANSWERED))
        .group_by(DeletionTarget.status)
        .order_by(DeletionTarget.status)
    ).all()
    if waiting:
        told = ", ".join(f"{count} {status}" for status, count in waiting)
        raise InUse(
            f"Deletion requests still ask the model {model.name!r} to forget ({told}). Wait until "
            "they are answered, decide about them, have failed jobs tried again, or cancel them; "
            f"`GET /v1/deletion-requests?model={model.name}` lists them."
        )
    mine = select(Job).where(Job.model_id == model.id, Job.status.in_(OPEN_JOBS))
    job = session.scalars(mine.order_by(Job.id).limit(1)).one_or_none()
    if job is not None:
        raise InUse(
            f"The job {job.id} ({job.kind}) works on the model {model.name!r}. Wait until it has "
            f"ended; `GET /v1/jobs/{job.id}` says how far it is."
        )
