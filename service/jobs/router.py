"""The routes of jobs. HTTP only."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, BackgroundTasks, Path, Query, Request, Response

from domain import doorbell
from domain.errors import CannotRetry, InvalidCursor, NotFound
from domain.states import OPEN_JOBS, JobKind, JobStatus
from service import polling
from service.dependencies import Queue, Sessions
from service.fields import Name
from service.jobs import operations, retry
from service.jobs.schemas import AlignmentRead, JobRead, JobSummary
from service.paging import Page, Paging
from service.problems import documented

router = APIRouter(prefix="/jobs", tags=["jobs"])

JobId = Annotated[UUID, Path(description="The id of the job.")]
OnlyStatus = Annotated[
    JobStatus | None, Query(alias="status", description="Return only jobs with this status.")
]
OnlyKind = Annotated[JobKind | None, Query(description="Return only jobs of this kind.")]
OnlyModel = Annotated[Name | None, Query(description="Return only jobs that work on this model.")]


@router.get("", summary="List jobs", responses=documented(InvalidCursor))
async def list_jobs(
    sessions: Sessions,
    window: Paging,
    only_status: OnlyStatus = None,
    kind: OnlyKind = None,
    model: OnlyModel = None,
) -> Page[JobSummary]:
    """List jobs, newest first: all of them, or those with one status, of one kind or for one
    model."""
    return await operations.find(sessions, window, status=only_status, kind=kind, model=model)


@router.get(
    "/{job_id}", summary="Get a job", response_model=JobRead, responses=documented(NotFound)
)
async def read_job(job_id: JobId, sessions: Sessions, request: Request) -> Response:
    """Get one job: its progress, its scores after every cycle, its evaluations and its audits."""
    job = await operations.get(sessions, job_id)
    return polling.answer(request, job, is_open=job.status in OPEN_JOBS)


@router.get(
    "/{job_id}/alignment",
    summary="Get the alignment curve of a job",
    response_model=AlignmentRead,
    responses=documented(NotFound),
)
async def read_alignment(job_id: JobId, sessions: Sessions, request: Request) -> Response:
    """Get the alignment scores of a job: before it, after every cycle, and after it."""
    curve = await operations.get_alignment(sessions, job_id)
    return polling.answer(request, curve, is_open=curve.status in OPEN_JOBS)


@router.post(
    "/{job_id}/retry", summary="Retry a failed job", responses=documented(NotFound, CannotRetry)
)
async def retry_job(
    job_id: JobId, sessions: Sessions, queue: Queue, background: BackgroundTasks
) -> JobRead:
    """Have a failed job tried again, after you have fixed what made it fail."""
    await retry.retry(sessions, job_id)
    background.add_task(doorbell.ring_sweep, queue)
    return await operations.get(sessions, job_id)
