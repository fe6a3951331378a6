"""The routes of datasets. HTTP only."""

from fastapi import APIRouter, BackgroundTasks, Request, Response

from service import doorbell, polling
from service.datasets import operations
from service.datasets.schemas import Check, Checked, DatasetCreate, DatasetRead
from service.dependencies import Queue, Sessions, Settings
from service.errors import InvalidCursor, LocationRefused, NameTaken, NotFound, TooManySamples
from service.fields import Name
from service.paging import Page, Paging
from service.problems import documented
from service.states import RegistrationStatus

router = APIRouter(prefix="/datasets", tags=["datasets"])


@router.post("", status_code=202, responses=documented(LocationRefused, NameTaken))
async def register_dataset(
    body: DatasetCreate,
    sessions: Sessions,
    queue: Queue,
    settings: Settings,
    background: BackgroundTasks,
    response: Response,
) -> DatasetRead:
    """Register a dataset. A job indexes it: follow `Location` until its status is `ready`.

    The same definition sent again gets the same answer. When the registration has failed, send it
    again, mended, under the same name.
    """
    dataset = await operations.register(sessions, body, data_roots=settings.data_roots)
    if dataset.status is RegistrationStatus.PENDING:
        background.add_task(doorbell.ring_job, queue, dataset.job_id)
    response.headers["Location"] = f"/v1/datasets/{dataset.name}"
    response.headers.update(polling.RETRY_AFTER)
    return dataset


@router.get("", responses=documented(InvalidCursor))
async def list_datasets(sessions: Sessions, window: Paging) -> Page[DatasetRead]:
    """All datasets, newest first."""
    return await operations.find(sessions, window)


@router.get("/{name}", response_model=DatasetRead, responses=documented(NotFound))
async def read_dataset(name: Name, sessions: Sessions, request: Request) -> Response:
    """One dataset: its status, and what indexing found."""
    dataset = await operations.get(sessions, name)
    return polling.answer(request, dataset, is_open=dataset.status is RegistrationStatus.PENDING)


@router.post("/{name}/check", responses=documented(NotFound, TooManySamples))
async def check_dataset(name: Name, body: Check, sessions: Sessions, settings: Settings) -> Checked:
    """Ask before a training run which samples may not be trained on: those that any model of the
    dataset has forgotten. They are found by keyed digests, also when their rows are long gone."""
    limit = settings.max_samples_per_request
    return await operations.check(sessions, name, body.sample_ids, limit=limit)
