"""The routes of datasets. HTTP only."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, BackgroundTasks, Path, Request, Response

from domain import doorbell
from domain.errors import (
    DatasetBusy,
    Deleted,
    IdempotencyKeyMissing,
    IdempotencyKeyReused,
    InUse,
    InvalidCursor,
    LocationRefused,
    NameTaken,
    NotFound,
    NotReady,
    TooManySamples,
)
from domain.states import OPEN_JOBS, RegistrationStatus
from service import deletion, polling
from service.datasets import operations, removal, states
from service.datasets.schemas import (
    Check,
    Checked,
    CheckIds,
    CheckRead,
    DatasetCreate,
    DatasetRead,
)
from service.datasets.state_schemas import StateCreate, StateRead
from service.dependencies import IdempotencyKey, Queue, Sessions, Settings
from service.fields import Name
from service.paging import Page, Paging
from service.problems import documented

router = APIRouter(prefix="/datasets", tags=["datasets"])

DatasetName = Annotated[Name, Path(description="The name of the dataset.")]
StateId = Annotated[UUID, Path(description="The id of the state, as its `Location` gives it.")]
CheckId = Annotated[UUID, Path(description="The id of the check, as its `Location` gives it.")]


@router.post(
    "",
    summary="Register a dataset",
    status_code=202,
    responses=documented(LocationRefused, NameTaken),
)
async def register_dataset(
    body: DatasetCreate,
    sessions: Sessions,
    queue: Queue,
    settings: Settings,
    background: BackgroundTasks,
    response: Response,
) -> DatasetRead:
    """Register a dataset. A job indexes it; follow `Location` until its status is `ready`.

    Sending the same definition again returns the same answer. If the registration failed, correct
    the definition and send it again under the same name.
    """
    dataset = await operations.register(sessions, body, data_roots=settings.data_roots)
    if dataset.status is RegistrationStatus.PENDING:
        background.add_task(doorbell.ring_job, queue, dataset.job_id)
    response.headers["Location"] = f"/v1/datasets/{dataset.name}"
    response.headers.update(polling.RETRY_AFTER)
    return dataset


@router.get("", summary="List datasets", responses=documented(InvalidCursor))
async def list_datasets(sessions: Sessions, window: Paging) -> Page[DatasetRead]:
    """List all datasets, newest first."""
    return await operations.find(sessions, window)


@router.get(
    "/{name}",
    summary="Get a dataset",
    response_model=DatasetRead,
    responses=documented(NotFound),
)
async def read_dataset(name: DatasetName, sessions: Sessions, request: Request) -> Response:
    """Get one dataset: its status, and what indexing found."""
    dataset = await operations.get(sessions, name)
    return polling.answer(request, dataset, is_open=deletion.is_open(dataset))


@router.delete(
    "/{name}", summary="Delete a dataset", status_code=202, responses=documented(NotFound, InUse)
)
async def delete_dataset(
    name: DatasetName,
    sessions: Sessions,
    queue: Queue,
    background: BackgroundTasks,
    response: Response,
) -> DatasetRead:
    """Delete a dataset: a job purges its index, which has the ids of its samples. Follow `Location`
    until `purged_at` is set.

    It is refused while models were trained on it, which are to be deleted first, while a job works
    on it, or while rows of forgotten samples are to be erased from its files. The files themselves
    are yours to delete. What models had forgotten stays suppressed: `check` goes on telling it, and
    certificates can be verified as before. So the name stays taken. Deleting it again changes
    nothing.
    """
    dataset = await removal.delete(sessions, name)
    if dataset.purged_at is None:
        background.add_task(doorbell.ring_job, queue, dataset.job_id)
        response.headers.update(polling.RETRY_AFTER)
    response.headers["Location"] = f"/v1/datasets/{name}"
    return dataset


@router.post(
    "/{name}/states",
    summary="Register another state of a dataset",
    status_code=202,
    responses=documented(
        IdempotencyKeyMissing,
        NotFound,
        NotReady,
        DatasetBusy,
        Deleted,
        LocationRefused,
        IdempotencyKeyReused,
    ),
)
async def register_state(
    name: DatasetName,
    body: StateCreate,
    idempotency_key: IdempotencyKey,
    sessions: Sessions,
    queue: Queue,
    settings: Settings,
    background: BackgroundTasks,
    response: Response,
) -> StateRead:
    """Tell that the dataset has other rows now. A job finds which samples came, went or changed,
    and follows the files with its index; follow `Location` until the state is `ready`.

    Models stay with the state that they were trained on. They never learned from samples that came
    later, and still know those that went: the answer counts these for each model, and a deletion
    request for them waits until a version of the model that was trained on this state is
    registered. If the state cannot be indexed, the one before stays.
    """
    found = await states.register(
        sessions, name, body, key=idempotency_key, data_roots=settings.data_roots
    )
    if found.status is RegistrationStatus.PENDING:
        background.add_task(doorbell.ring_job, queue, found.job_id)
    response.headers["Location"] = f"/v1/datasets/{name}/states/{found.id}"
    response.headers.update(polling.RETRY_AFTER)
    return found


@router.get(
    "/{name}/states/{state_id}",
    summary="Get a state of a dataset",
    response_model=StateRead,
    responses=documented(NotFound),
)
async def read_state(
    name: DatasetName, state_id: StateId, sessions: Sessions, request: Request
) -> Response:
    """Get one state of a dataset: how far it is, and what is different in it."""
    found = await states.get(sessions, name, state_id)
    return polling.answer(request, found, is_open=found.status is RegistrationStatus.PENDING)


@router.post(
    "/{name}/check",
    summary="Check which samples may not be trained on",
    response_model=None,  # which of the two it is, the status says
    responses={
        200: {"model": Checked, "description": "Which of the ids may not be trained on."},
        202: {"model": CheckRead, "description": "A job reads the file; follow `Location`."},
        **documented(NotFound, LocationRefused, TooManySamples),
    },
)
async def check_dataset(
    name: DatasetName,
    body: Check,
    sessions: Sessions,
    queue: Queue,
    settings: Settings,
    background: BackgroundTasks,
    response: Response,
) -> Checked | CheckRead:
    """Ask before a training run which samples may not be trained on, because a model of the dataset
    has forgotten them. They are recognised by keyed digests, even if their rows are long gone.

    Send `sample_ids`, and the answer comes at once. Send the `uri` of a Parquet file, and a job
    reads it; follow `Location`. A worker does one job at a time, so a check may have to wait for a
    long job to end.
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


@router.get(
    "/{name}/checks/{check_id}",
    summary="Get the check of a file",
    response_model=CheckRead,
    responses=documented(NotFound),
)
async def read_check(
    name: DatasetName, check_id: CheckId, sessions: Sessions, request: Request
) -> Response:
    """Get one check of a Parquet file: how far it is, and which rows may not be trained on."""
    check = await operations.get_check(sessions, name, check_id)
    return polling.answer(request, check, is_open=check.status in OPEN_JOBS)
