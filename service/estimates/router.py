"""The routes of estimates. HTTP only."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, BackgroundTasks, Path, Request, Response

from domain import doorbell
from domain.errors import (
    Deleted,
    NoGroups,
    NoRecipe,
    NotFound,
    NotReady,
    TooManySamples,
    UnknownSamples,
    UnknownSubjects,
)
from domain.states import OPEN_JOBS
from service import polling
from service.deletion_requests.demands import DeletionRequestCreate
from service.dependencies import Queue, Sessions, Settings
from service.estimates import operations
from service.estimates.schemas import EstimateRead
from service.problems import documented

router = APIRouter(prefix="/deletion-requests", tags=["deletion requests"])

EstimateId = Annotated[
    UUID, Path(description="The id of the estimate, as its `Location` gives it.")
]


@router.post(
    "/estimate",
    summary="Estimate a deletion request",
    status_code=202,
    responses=documented(
        NotFound,
        NotReady,
        Deleted,
        UnknownSamples,
        UnknownSubjects,
        NoGroups,
        NoRecipe,
        TooManySamples,
    ),
)
async def estimate_deletion_request(
    body: DeletionRequestCreate,
    sessions: Sessions,
    queue: Queue,
    settings: Settings,
    background: BackgroundTasks,
    response: Response,
) -> EstimateRead:
    """Ask what a deletion request would find and take, without submitting it; follow `Location`.

    The body is that of a deletion request. Nothing is forgotten, and the ids are deleted as soon
    as the models have been examined. A worker does one job at a time, so an estimate may have to
    wait for a long job to end.
    """
    estimate = await operations.ask(sessions, body, settings=settings)
    for target in estimate.targets:
        background.add_task(doorbell.ring_job, queue, target.job_id)
    response.headers["Location"] = f"/v1/deletion-requests/estimates/{estimate.id}"
    response.headers.update(polling.RETRY_AFTER)
    return estimate


@router.get(
    "/estimates/{estimate_id}",
    summary="Get an estimate",
    response_model=EstimateRead,
    responses=documented(NotFound),
)
async def read_estimate(estimate_id: EstimateId, sessions: Sessions, request: Request) -> Response:
    """Get one estimate: how far it is, and what it found for each model."""
    read = await operations.get(sessions, estimate_id)
    return polling.answer(request, read, is_open=read.status in OPEN_JOBS)
