"""The routes of models and their versions. HTTP only."""

from typing import Annotated, Any

from fastapi import APIRouter, BackgroundTasks, Path, Request, Response

from domain import doorbell
from domain.errors import (
    FactoryRefused,
    InvalidCursor,
    LocationRefused,
    NameTaken,
    NotFound,
    NotReady,
    NotServable,
    RangeNotSatisfiable,
    RecipeRefused,
    WeightsRefused,
    WeightsUnavailable,
)
from domain.states import RegistrationStatus
from service import downloads, polling
from service.dependencies import Queue, Sessions, Settings
from service.fields import Name
from service.models import lineage, operations, weights
from service.models.schemas import LineageRead, ModelCreate, ModelRead, VersionRead
from service.paging import Page, Paging
from service.problems import documented

router = APIRouter(prefix="/models", tags=["models"])

Number = Annotated[int, Path(ge=1, lt=2**31)]

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
    status_code=202,
    responses=documented(
        NotFound,
        NotReady,
        NameTaken,
        LocationRefused,
        WeightsRefused,
        FactoryRefused,
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
    """Register a trained classifier. A job examines it: follow `Location` until it is `ready`.

    The same definition sent again gets the same answer. When the registration has failed, send it
    again, mended, under the same name.
    """
    model = await operations.register(sessions, body, settings=settings)
    if model.status is RegistrationStatus.PENDING:
        background.add_task(doorbell.ring_job, queue, model.job_id)
    response.headers["Location"] = f"/v1/models/{model.name}"
    response.headers.update(polling.RETRY_AFTER)
    return model


@router.get("", responses=documented(InvalidCursor))
async def list_models(sessions: Sessions, window: Paging) -> Page[ModelRead]:
    """All models, newest first."""
    return await operations.find(sessions, window)


@router.get("/{name}", response_model=ModelRead, responses=documented(NotFound))
async def read_model(name: Name, sessions: Sessions, request: Request) -> Response:
    """One model: its status, and the version to serve."""
    model = await operations.get(sessions, name)
    return polling.answer(request, model, is_open=model.status is RegistrationStatus.PENDING)


@router.get("/{name}/versions", responses=documented(NotFound, InvalidCursor))
async def list_versions(name: Name, sessions: Sessions, window: Paging) -> Page[VersionRead]:
    """The versions of a model, newest first."""
    return await operations.find_versions(sessions, name, window)


@router.get("/{name}/lineage", responses=documented(NotFound, InvalidCursor))
async def read_lineage(name: Name, sessions: Sessions, window: Paging) -> LineageRead:
    """Everything that was made from the model's data: what forgotten samples it still holds, and
    when that was, or is to be, deleted."""
    return await lineage.read(sessions, name, window)


@router.get("/{name}/versions/{number}", responses=documented(NotFound))
async def read_version(name: Name, number: Number, sessions: Sessions) -> VersionRead:
    """One version of a model: the digest of its weights, and whether it may be served."""
    return await operations.get_version(sessions, name, number)


@router.get(
    "/{name}/versions/{number}/weights",
    response_class=Response,
    responses={
        200: {"description": "The whole file.", "headers": HEADERS, "content": FILE},
        206: {"description": "The range that was asked for.", "headers": HEADERS, "content": FILE},
        304: {"description": "The file is the one named in `If-None-Match`."},
        **documented(NotFound, NotServable, RangeNotSatisfiable, WeightsUnavailable),
    },
)
async def read_weights(
    name: Name, number: Number, sessions: Sessions, settings: Settings, request: Request
) -> Response:
    """The weights of the champion: a safetensors file, which can be resumed with `Range`.

    The digest in `ETag` and `Repr-Digest` is that of the whole file; compare it once you have all
    of it. Only the champion may be served: a version that was superseded holds forgotten samples,
    and a candidate awaits a decision. One that is superseded while it is being sent is sent to its
    end, so look at `GET /v1/models/{name}` for the champion before you deploy what you fetched.

    Every download that begins with the first byte is noted in the audit trail (`weights.fetched`):
    a copy outside the service may outlive a version that is superseded later.
    """
    digest = await weights.digest_of(sessions, name, number)
    tag = f'"{digest}"'
    headers = {
        "ETag": tag,
        "Repr-Digest": downloads.representation_digest(digest),
        "Cache-Control": "private, no-cache",
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
