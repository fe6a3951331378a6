"""The routes of datasets. HTTP only."""

from uuid import UUID

from fastapi import APIRouter, BackgroundTasks, Request, Response

from domain import doorbell
from domain.errors import InvalidCursor, LocationRefused, NameTaken, NotFound, TooManySamples
from domain.states import OPEN_JOBS, RegistrationStatus
from service import polling
from service.datasets import operations
from service.datasets.schemas import (
    Check,
    Checked,
    CheckIds,
    CheckRead,
    DatasetCreate,
    DatasetRead,
)
from service.dependencies import Queue, Sessions, Settings
from service.fields import Name
from service.paging import Page, Paging
from service.problems import documented

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


@router.post(
    "/{name}/check",
    response_model=None,  # which of the two it is, the status says
    responses={
        200: {"model": Checked, "description": "Which of the ids may not be trained on"},
        202: {"model": CheckRead, "description": "A job reads the file: follow `Location`"},
        **documented(NotFound, LocationRefused, TooManySamples),
    },
)
async def check_dataset(
    name: Name,
    body: Check,
    sessions: Sessions,
    queue: Queue,
    settings: Settings,
    background: BackgroundTasks,
    response: Response,
) -> Checked | CheckRead:
    """Ask before a training run which samples may not be trained on: those that any model of the
    dataset has forgotten. They are found by keyed digests, also when their rows are long gone.

    Ids are answered at once. Send the `uri` of a Parquet file, and a job reads it: follow
    `Location`. A worker does one job at a time: behind a long one, a check waits too.
    """
    if isinstance(body, CheckIds):
        limit = settings.max_samples_per_request
        return await operations.check(sessions, name, body.sample_ids, limit=limit)
    check = await operations.check_file(sessions, name, body, data_roots=settings.data_roots)
    background.add_task(doorbell.ring_job, queue, check.job_id)
    response.status_code = 202
    response.headers["Location"] = f"/v1/datasets/{name}/checks/{check.id}"
    response.headers.update(polling.RETRY_AFTER)
    return check


@router.get("/{name}/checks/{check_id}", response_model=CheckRead, responses=documented(NotFound))
async def read_check(name: Name, check_id: UUID, sessions: Sessions, request: Request) -> Response:
    """One check of a Parquet file: how far it is, and which rows may not be trained on."""
    check = await operations.get_check(sessions, name, check_id)
    return polling.answer(request, check, is_open=check.status in OPEN_JOBS)
