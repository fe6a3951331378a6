"""The routes of jobs. HTTP only."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, BackgroundTasks, Query, Request, Response

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

OnlyStatus = Annotated[JobStatus | None, Query(alias="status")]


@router.get("", responses=documented(InvalidCursor))
async def list_jobs(
    sessions: Sessions,
    window: Paging,
    only_status: OnlyStatus = None,
    kind: JobKind | None = None,
    model: Name | None = None,
) -> Page[JobSummary]:
    """Jobs, newest first: all, or those of one status, kind or model."""
    return await operations.find(sessions, window, status=only_status, kind=kind, model=model)


@router.get("/{job_id}", response_model=JobRead, responses=documented(NotFound))
async def read_job(job_id: UUID, sessions: Sessions, request: Request) -> Response:
    """One job: progress, scores after every cycle, evaluations before and after."""
    job = await operations.get(sessions, job_id)
    return polling.answer(request, job, is_open=job.status in OPEN_JOBS)


@router.get("/{job_id}/alignment", response_model=AlignmentRead, responses=documented(NotFound))
async def read_alignment(job_id: UUID, sessions: Sessions, request: Request) -> Response:
    """The curve of alignment scores of a job: before, after every cycle, after."""
    curve = await operations.get_alignment(sessions, job_id)
    return polling.answer(request, curve, is_open=curve.status in OPEN_JOBS)


@router.post("/{job_id}/retry", responses=documented(NotFound, CannotRetry))
async def retry_job(
    job_id: UUID, sessions: Sessions, queue: Queue, background: BackgroundTasks
) -> JobRead:
    """Have a failed job tried again, once what made it fail is mended."""
    await retry.retry(sessions, job_id)
    background.add_task(doorbell.ring_sweep, queue)
    return await operations.get(sessions, job_id)
