"""The figures for those who run the service: as JSON, and for Prometheus."""

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4

from service import figures, prometheus
from service.dependencies import Sessions
from service.figures import Figures
from service.problems import documented

router = APIRouter(prefix="/admin", tags=["admin"])
scraping = APIRouter(tags=["operations"])


@router.get("/metrics", responses=documented())
async def read_metrics(sessions: Sessions) -> Figures:
    """Queue depth, oldest wait, overdue requests, durations: read from the database now."""
    return await figures.read(sessions)


@scraping.get("/metrics", response_class=Response)
async def scrape_metrics(sessions: Sessions) -> Response:
    """The same figures for Prometheus, with those of this process."""
    now = await figures.read(sessions)
    return Response(prometheus.exposition(now), media_type=CONTENT_TYPE_PLAIN_0_0_4)
