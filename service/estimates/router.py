"""The routes of estimates. HTTP only."""

from uuid import UUID

from fastapi import APIRouter, BackgroundTasks, Request, Response

from domain import doorbell
from domain.errors import NoRecipe, NotFound, NotReady, TooManySamples, UnknownSamples
from domain.states import OPEN_JOBS
from service import polling
from service.deletion_requests.schemas import DeletionRequestCreate
from service.dependencies import Queue, Sessions, Settings
from service.estimates import operations
from service.estimates.schemas import EstimateRead
from service.problems import documented

router = APIRouter(prefix="/deletion-requests", tags=["deletion requests"])


@router.post(
    "/estimate",
    status_code=202,
    responses=documented(NotFound, NotReady, UnknownSamples, NoRecipe, TooManySamples),
)
async def estimate_deletion_request(
    body: DeletionRequestCreate,
    sessions: Sessions,
    queue: Queue,
    settings: Settings,
    background: BackgroundTasks,
    response: Response,
) -> EstimateRead:
    """Ask what a deletion request would meet, without asking for it: follow `Location`.

    The body is that of a deletion request. Nothing is forgotten; the ids are deleted as soon as
    the models were looked at. A worker does one job at a time: behind a long one, an estimate
    waits too.
    """
    estimate = await operations.ask(sessions, body, settings=settings)
    for target in estimate.targets:
        background.add_task(doorbell.ring_job, queue, target.job_id)
    response.headers["Location"] = f"/v1/deletion-requests/estimates/{estimate.id}"
    response.headers.update(polling.RETRY_AFTER)
    return estimate


@router.get("/estimates/{estimate_id}", response_model=EstimateRead, responses=documented(NotFound))
async def read_estimate(estimate_id: UUID, sessions: Sessions, request: Request) -> Response:
    """One estimate: how far it is, and what it found for each model."""
    read = await operations.get(sessions, estimate_id)
    return polling.answer(request, read, is_open=read.status in OPEN_JOBS)
