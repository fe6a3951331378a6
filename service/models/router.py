"""The routes of models and their versions. HTTP only."""

from typing import Annotated

from fastapi import APIRouter, BackgroundTasks, Path, Request, Response

from domain import doorbell
from domain.errors import (
    FactoryRefused,
    InvalidCursor,
    LocationRefused,
    NameTaken,
    NotFound,
    NotReady,
    RecipeRefused,
    WeightsRefused,
)
from domain.states import RegistrationStatus
from service import polling
from service.dependencies import Queue, Sessions, Settings
from service.fields import Name
from service.models import lineage, operations
from service.models.schemas import LineageRead, ModelCreate, ModelRead, VersionRead
from service.paging import Page, Paging
from service.problems import documented

router = APIRouter(prefix="/models", tags=["models"])

Number = Annotated[int, Path(ge=1, lt=2**31)]


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
