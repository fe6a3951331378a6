"""Versions that were trained elsewhere: offering them, and what came of it. One function, one
transaction."""

from uuid import UUID

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from domain import jobs, requests, trail
from domain.errors import IdempotencyKeyReused, ModelBusy, NotFound, NotReady, no_such
from domain.locations import allowed_path
from domain.requests import NEAR_DUE, PLANNING_LOCK
from domain.states import BESIDE_OTHERS, OPEN_JOBS, JobKind, RegistrationStatus, RequestStatus
from domain.tables import (
    Dataset,
    DeletionRequest,
    DeletionTarget,
    Job,
    Model,
    ModelVersion,
    VersionRegistration,
)
from domain.version_events import VersionOffered
from service import deletion
from service.dependencies import Sessions, Settings
from service.models import beside
from service.models.version_schemas import (
    TrainedOnFile,
    VersionCreate,
    VersionRegistrationRead,
)


async def offer(
    sessions: Sessions, name: str, wanted: VersionCreate, *, key: str, settings: Settings
) -> VersionRegistrationRead:
    """Store what is offered and the job that examines it; once, however often it is sent.

    What the model's open job was to do is done afterwards: with the new version, if it is served.

    Raises:
        LocationRefused: the weights or the ids lie outside the allowed directories.
        WeightsRefused: they are not safetensors.
        NotFound: there is no such model.
        NotReady: the model or its dataset is not ready.
        Deleted: the model was.
        ModelBusy: another version is being registered, or a job forgets what is due soon.
        IdempotencyKeyReused: the key already stands for another body.
    """
    place = allowed_path(wanted.weights, settings.data_roots)
    if isinstance(wanted.trained_on, TrainedOnFile):
        allowed_path(wanted.trained_on.uri, settings.data_roots)
    async with sessions.begin() as session:
        kind = await session.scalar(select(Model.architecture["kind"].astext).filter_by(name=name))
        if kind is not None:
            beside.check_weights(kind, place)
        return await session.run_sync(_offer, name, wanted, key)


async def get(sessions: Sessions, name: str, registration_id: UUID) -> VersionRegistrationRead:
    """One registration. Raises NotFound when the model has none with this id."""
    async with sessions.begin() as session:
        found = await session.execute(
            _registrations().where(Model.name == name, VersionRegistration.id == registration_id)
        )
        row = found.one_or_none()
    if row is None:
        raise NotFound(
            f"The model {name!r} has no registration {registration_id}. Offer a version with "
            f"`POST /v1/models/{name}/versions`."
        )
    return _read(*row)


def _offer(session: Session, name: str, wanted: VersionCreate, key: str) -> VersionRegistrationRead:
    # With the planner held off, no request gets into a job meanwhile.
    session.execute(select(func.pg_advisory_xact_lock(PLANNING_LOCK)))
    model = session.scalars(
        select(Model).filter_by(name=name).with_for_update(key_share=True)
    ).one_or_none()
    if model is None:
        raise no_such(f"model {name!r}", listed_at="/v1/models")
    known = session.scalars(
        select(VersionRegistration).filter_by(model_id=model.id, idempotency_key=key)
    ).one_or_none()
    if known is not None:
        if known.fingerprint != wanted.fingerprint():
            raise IdempotencyKeyReused(
                "This key was sent before with another body. Use a new key for another version."
            )
        return _one(session, known.id)
    _require_ready(session, model)
    _make_room(session, model)
    job = jobs.queue(session, JobKind.REGISTER_VERSION, actor="api", model_id=model.id)
    sent = wanted.model_dump(mode="json")
    row = VersionRegistration(
        model_id=model.id,
        job_id=job.id,
        idempotency_key=key,
        fingerprint=wanted.fingerprint(),
        weights_uri=wanted.weights,
        trained_on=sent["trained_on"],
        expected_accuracy=sent["expected_accuracy"],
        accept_accuracy=wanted.accept_accuracy,
        accept_memory=wanted.accept_memory,
    )
    session.add(row)
    session.flush()
    trail.record(
        session, "api", model.id,
        VersionOffered(
            registration=row.id, job=job.id,
            declared="file" if isinstance(wanted.trained_on, TrainedOnFile) else "split",
            accept_accuracy=wanted.accept_accuracy or None,
            accept_memory=wanted.accept_memory or None,
        ),
    )  # fmt: skip
    return _one(session, row.id)


def _require_ready(session: Session, model: Model) -> None:
    deletion.require_there(model)
    if model.status is not RegistrationStatus.READY:
        raise NotReady(
            f"The model {model.name!r} is {model.status}, and only a model that is `ready` takes "
            f"new versions; `GET /v1/models/{model.name}` says more."
        )
    dataset = session.get_one(Dataset, model.dataset_id)
    if dataset.status is not RegistrationStatus.READY:
        raise NotReady(
            f"The dataset {dataset.name!r} is {dataset.status}; wait until "
            f"`GET /v1/datasets/{dataset.name}` says `ready`."
        )


def _make_room(session: Session, model: Model) -> None:
    """End the model's open job: what it serves waits for a new one, and goes on with the new
    version, or with the old one if the new one is refused.

    Raises:
        ModelBusy: it must not be ended.
    """
    job = session.scalars(
        select(Job)
        .where(
            Job.model_id == model.id,
            Job.status.in_(OPEN_JOBS),
            Job.kind.not_in(BESIDE_OTHERS),
        )
        .with_for_update()
    ).one_or_none()
    if job is None:
        return
    if job.kind is JobKind.REGISTER_VERSION:
        raise ModelBusy(
            f"Another version of the model {model.name!r} is being registered by the job {job.id}. "
            "Wait until it has ended, then send this one."
        )
    served = DeletionTarget.job_id == job.id
    due = (
        select(func.count())
        .select_from(DeletionRequest)
        .join(DeletionTarget, DeletionTarget.request_id == DeletionRequest.id)
        .where(served, DeletionRequest.due_at < func.now() + NEAR_DUE)
    )
    if job.attempt and session.scalars(due).one():
        raise ModelBusy(
            f"The job {job.id} makes the model {model.name!r} forget what is due within "
            f"{NEAR_DUE.days} days, so it is not given up for a new version. Wait until it has "
            "ended. If the new weights were trained on what it forgets, they will be refused: "
            "train without that."
        )
    jobs.cancel(session, job, actor="api")
    requests.move(session, RequestStatus.PENDING, served, actor="api", job_id=None)


def _registrations() -> Select[VersionRegistration, str, int]:
    return (
        select(VersionRegistration, Model.name, ModelVersion.number)
        .join(Model, Model.id == VersionRegistration.model_id)
        .outerjoin(ModelVersion, ModelVersion.job_id == VersionRegistration.job_id)
    )


def _one(session: Session, registration_id: UUID) -> VersionRegistrationRead:
    found = session.execute(_registrations().where(VersionRegistration.id == registration_id))
    return _read(*found.one())


def _read(row: VersionRegistration, model: str, version: int | None) -> VersionRegistrationRead:
    return VersionRegistrationRead.model_validate(
        {
            "id": row.id,
            "model": model,
            "status": row.status,
            "job_id": row.job_id,
            "weights": row.weights_uri,
            "trained_on": row.trained_on,
            "expected_accuracy": row.expected_accuracy,
            "accept_accuracy": row.accept_accuracy,
            "accept_memory": row.accept_memory,
            "version": version,
            "found": row.found,
            "failure": row.failure,
            "created_at": row.created_at,
            "ready_at": row.ready_at,
        }
    )
