"""The routes of models and their versions. HTTP only."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, BackgroundTasks, Path, Request, Response

from domain import doorbell
from domain.errors import (
    Deleted,
    FactoryRefused,
    IdempotencyKeyMissing,
    IdempotencyKeyReused,
    InUse,
    InvalidCursor,
    LocationRefused,
    ModelBusy,
    NameTaken,
    NotFound,
    NotReady,
    NotServable,
    PreprocessingRefused,
    RangeNotSatisfiable,
    RecipeRefused,
    WeightsRefused,
    WeightsUnavailable,
)
from domain.states import RegistrationStatus
from service import deletion, downloads, polling
from service.dependencies import IdempotencyKey, Queue, Sessions, Settings
from service.fields import Name
from service.headers import NOT_STORED
from service.models import (
    lineage,
    operations,
    pooled_audit,
    preview,
    registrations,
    removal,
    weights,
)
from service.models.pooled_audit import PooledAuditRead
from service.models.preview import PreviewRead
from service.models.schemas import LineageRead, ModelCreate, ModelRead
from service.models.version_schemas import VersionCreate, VersionRead, VersionRegistrationRead
from service.paging import Page, Paging
from service.problems import documented

router = APIRouter(prefix="/models", tags=["models"])

ModelName = Annotated[Name, Path(description="The name of the model.")]
Number = Annotated[
    int, Path(ge=1, lt=2**31, description="The number of the version, counted from 1.")
]

RegistrationId = Annotated[
    UUID, Path(description="The id of the registration, as its `Location` gives it.")
]

FILE: dict[str, Any] = {
    "application/octet-stream": {"schema": {"type": "string", "format": "binary"}}
}
HEADERS = {
    name: {"description": description, "schema": {"type": "string"}}
    for name, description in {
        "ETag": "SHA-256 of the whole file, in hex and in quotes.",
        "Repr-Digest": "The same digest in base64, as RFC 9530 writes it.",
        "Content-Disposition": "A name for the file, such as `cnn-2.safetensors`.",
    }.items()
}


@router.post(
    "",
    summary="Register a model",
    status_code=202,
    responses=documented(
        NotFound,
        NotReady,
        NameTaken,
        Deleted,
        LocationRefused,
        WeightsRefused,
        FactoryRefused,
        PreprocessingRefused,
        RecipeRefused,
    ),
)
async def register_model(
    body: ModelCreate,
    sessions: Sessions,
    queue: Queue,
    settings: Settings,
    background: BackgroundTasks,
    response: Response,
) -> ModelRead:
    """Register a trained classifier. A job examines it; follow `Location` until it is `ready`.

    Sending the same definition again returns the same answer. If the registration failed, correct
    the definition and send it again under the same name.
    """
    model = await operations.register(sessions, body, settings=settings)
    if model.status is RegistrationStatus.PENDING:
        background.add_task(doorbell.ring_job, queue, model.job_id)
    response.headers["Location"] = f"/v1/models/{model.name}"
    response.headers.update(polling.RETRY_AFTER)
    return model


@router.get("", summary="List models", responses=documented(InvalidCursor))
async def list_models(sessions: Sessions, window: Paging) -> Page[ModelRead]:
    """List all models, newest first."""
    return await operations.find(sessions, window)


@router.get(
    "/{name}", summary="Get a model", response_model=ModelRead, responses=documented(NotFound)
)
async def read_model(name: ModelName, sessions: Sessions, request: Request) -> Response:
    """Get one model: its status, and the version to serve."""
    model = await operations.get(sessions, name)
    return polling.answer(request, model, is_open=deletion.is_open(model))


@router.delete(
    "/{name}", summary="Delete a model", status_code=202, responses=documented(NotFound, InUse)
)
async def delete_model(
    name: ModelName,
    sessions: Sessions,
    queue: Queue,
    background: BackgroundTasks,
    response: Response,
) -> ModelRead:
    """Delete a model: none of its versions is served any more, and a job purges the files of all of
    them, and what reference models said, without a grace period. Follow `Location` until
    `purged_at` is set.

    It is refused while a deletion request waits for the model or has failed, or a job works on it.
    What it had forgotten stays suppressed in the dataset, and certificates, jobs and the audit
    trail can be read and verified as before. So the name stays taken. The files that its weights
    were registered from are yours to delete. Deleting it again changes nothing.
    """
    model = await removal.delete(sessions, name)
    if model.purged_at is None:
        background.add_task(doorbell.ring_job, queue, model.job_id)
        response.headers.update(polling.RETRY_AFTER)
    response.headers["Location"] = f"/v1/models/{name}"
    return model


@router.get(
    "/{name}/preview",
    summary="Look at what the network gets",
    response_class=Response,
    responses={
        200: {
            "description": "The picture, or the same in figures.",
            "model": PreviewRead,
            "content": {preview.PICTURE: {"schema": {"type": "string", "format": "binary"}}},
        },
        **documented(NotFound),
    },
)
async def read_preview(
    name: ModelName, sessions: Sessions, settings: Settings, request: Request
) -> Response:
    """Look at ten samples as the champion's network gets them, after preprocessing, with their
    labels and its answers: a picture if they are images, and figures otherwise or with
    `Accept: application/json`.

    If they are rotated, cropped or in the wrong colours, the preprocessing is wrong; if the answers
    are wrong, the order of the classes may be. The samples are personal data: whoever looks is
    noted in the audit trail as `preview.fetched`, and nothing is to be cached.
    """
    picture = preview.wants_picture(request.headers.get("accept", ""))
    content, media_type = await preview.read(sessions, settings.store, name, picture=picture)
    headers = {"Cache-Control": "private, no-store", "Vary": "Accept"}
    return Response(content, headers=headers, media_type=media_type)


@router.post(
    "/{name}/versions",
    summary="Register a version that was trained elsewhere",
    status_code=202,
    responses=documented(
        IdempotencyKeyMissing,
        NotFound,
        NotReady,
        ModelBusy,
        Deleted,
        LocationRefused,
        WeightsRefused,
        IdempotencyKeyReused,
    ),
)
async def register_version(
    name: ModelName,
    body: VersionCreate,
    idempotency_key: IdempotencyKey,
    sessions: Sessions,
    queue: Queue,
    settings: Settings,
    background: BackgroundTasks,
    response: Response,
) -> VersionRegistrationRead:
    """Register weights of the same architecture that you trained yourself, such as each month. A
    job examines them; follow `Location` until the registration is `ready`.

    You declare what they were trained on, and the service compares it with what is forgotten:
    weights that were trained on a sample which the model has forgotten, or which is suppressed in
    the dataset, are refused, with counts and what to do. Where rows of forgotten samples are still
    in the dataset, it is also measured whether the weights know them. Then they become the
    champion, as an `exact` version that was `declared` to be so; the versions before are
    superseded, and purged as after any other job.

    An open deletion request is completed by the new version if this was trained on none of its
    samples. Otherwise it goes on with the new version. A job that is at work on the model is ended
    for this, and planned anew, unless what it forgets is due within 3 days.
    """
    found = await registrations.offer(sessions, name, body, key=idempotency_key, settings=settings)
    if found.status is RegistrationStatus.PENDING:
        background.add_task(doorbell.ring_job, queue, found.job_id)
    response.headers["Location"] = f"/v1/models/{name}/registrations/{found.id}"
    response.headers.update(polling.RETRY_AFTER)
    return found


@router.get(
    "/{name}/registrations/{registration_id}",
    summary="Get the registration of a version",
    response_model=VersionRegistrationRead,
    responses=documented(NotFound),
)
async def read_registration(
    name: ModelName, registration_id: RegistrationId, sessions: Sessions, request: Request
) -> Response:
    """Get what became of weights that were registered as a version: served, or why not."""
    found = await registrations.get(sessions, name, registration_id)
    return polling.answer(request, found, is_open=found.status is RegistrationStatus.PENDING)


@router.get(
    "/{name}/versions",
    summary="List the versions of a model",
    responses=documented(NotFound, InvalidCursor),
)
async def list_versions(name: ModelName, sessions: Sessions, window: Paging) -> Page[VersionRead]:
    """List the versions of a model, newest first."""
    return await operations.find_versions(sessions, name, window)


@router.get(
    "/{name}/lineage",
    summary="List what was made from a model's data",
    responses=documented(NotFound, InvalidCursor),
)
async def read_lineage(name: ModelName, sessions: Sessions, window: Paging) -> LineageRead:
    """List everything that was made from the model's data, which forgotten samples it still holds,
    and when it was or will be deleted."""
    return await lineage.read(sessions, name, window)


@router.get(
    "/{name}/pooled-audit",
    summary="Get the pooled audit of a model",
    responses=documented(NotFound),
)
async def read_pooled_audit(name: ModelName, sessions: Sessions) -> PooledAuditRead:
    """Get what the samples that the model has forgotten lately say together: many requests of one
    sample have power where none of them alone has. It is judged anew with each version."""
    return await pooled_audit.read(sessions, name)


@router.get(
    "/{name}/versions/{number}",
    summary="Get a version of a model",
    responses=documented(NotFound),
)
async def read_version(name: ModelName, number: Number, sessions: Sessions) -> VersionRead:
    """Get one version of a model: the digest of its weights, and whether it may be served."""
    return await operations.get_version(sessions, name, number)


@router.get(
    "/{name}/versions/{number}/weights",
    summary="Download the weights of the champion",
    response_class=Response,
    responses={
        200: {"description": "The whole file.", "headers": HEADERS, "content": FILE},
        206: {"description": "The range that was asked for.", "headers": HEADERS, "content": FILE},
        304: {"description": "The file is the one named in `If-None-Match`."},
        **documented(NotFound, NotServable, RangeNotSatisfiable, WeightsUnavailable),
    },
)
async def read_weights(
    name: ModelName, number: Number, sessions: Sessions, settings: Settings, request: Request
) -> Response:
    """Download the champion's weights as a safetensors file. Resume with `Range` and `If-Range`.

    `ETag` and `Repr-Digest` give the SHA-256 of the whole file; check it when you have all of it.
    Only the champion may be served: a superseded version holds forgotten samples, and a candidate
    awaits a person's decision. A version that is superseded during a download is still sent to its
    end, so check with `GET /v1/models/{name}` that it is the champion before you deploy it.

    Every download that begins with the first byte is recorded in the audit trail as
    `weights.fetched`, because the copy may outlive a version that is superseded later.
    """
    digest = await weights.digest_of(sessions, name, number)
    tag = f'"{digest}"'
    headers = {
        "ETag": tag,
        "Repr-Digest": downloads.representation_digest(digest),
        "Cache-Control": NOT_STORED,
    }
    if polling.is_known(request, tag):
        return Response(status_code=304, headers=headers)
    file, size = await weights.open_file(settings.store, digest)
    try:
        part = downloads.asked(request, size, tag=tag)
        if part.start == 0:
            await weights.record_fetched(sessions, name, number)
    except BaseException:
        file.close()
        raise
    headers["Content-Disposition"] = f'attachment; filename="{name}-{number}.safetensors"'
    return downloads.Download(file, part, headers)
