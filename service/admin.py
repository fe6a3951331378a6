"""The figures for those who run the service: as JSON, and for Prometheus."""

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4

from service import figures, prometheus
from service.dependencies import Sessions
from service.figures import Figures
from service.problems import documented

router = APIRouter(prefix="/admin", tags=["admin"])
scraping = APIRouter(tags=["operations"])


@router.get("/metrics", summary="Get metrics as JSON", responses=documented())
async def read_metrics(sessions: Sessions) -> Figures:
    """Get the state of the service in figures, such as queue depth, oldest wait, overdue requests
    and durations. They are read from the database when you ask."""
    return await figures.read(sessions)


@scraping.get("/metrics", summary="Get metrics for Prometheus", response_class=Response)
async def scrape_metrics(sessions: Sessions) -> Response:
    """Get the same figures in the text format of Prometheus, with those of this process."""
    now = await figures.read(sessions)
    return Response(prometheus.exposition(now), media_type=CONTENT_TYPE_PLAIN_0_0_4)
