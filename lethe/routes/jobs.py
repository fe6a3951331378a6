"""The routes of jobs."""

from uuid import UUID

from lethe.calls import Call, Listed
from lethe.routes.building import get, pages, post
from lethe.routing import listing, route
from lethe.schemas.common import JobStatus, Page
from lethe.schemas.jobs import Alignment, Job, JobKind, JobSummary


class Jobs:
    """Pieces of work: how they run, and what they measured."""

    @listing
    def list_jobs(
        self,
        *,
        status: JobStatus | str | None = None,
        kind: JobKind | str | None = None,
        model: str | None = None,
    ) -> Listed[Page[JobSummary], JobSummary]:
        """Jobs, newest first: all, or those of one status, kind or model."""
        query = {"status": status, "kind": kind, "model": model}
        return pages("/v1/jobs", Page[JobSummary], query)

    @route
    def read_job(self, job_id: UUID | str) -> Call[Job]:
        """One job: progress, scores after every cycle, evaluations before and after."""
        return get("/v1/jobs/{job_id}", Job, job_id=job_id)

    @route
    def read_alignment(self, job_id: UUID | str) -> Call[Alignment]:
        """The curve of alignment scores of a job: before, after every cycle, after."""
        return get("/v1/jobs/{job_id}/alignment", Alignment, job_id=job_id)

    @route
    def retry_job(self, job_id: UUID | str) -> Call[Job]:
        """Have a failed job tried again, once what made it fail is mended."""
        return post("/v1/jobs/{job_id}/retry", Job, job_id=job_id)
