"""The figures for those who run the service: as JSON, and for Prometheus."""

from typing import Annotated, cast

from fastapi import APIRouter, Depends, Request, Response
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4

from domain.errors import TooManyAttempts, Unauthorized, Unavailable
from service.figures import Figures
from service.kept import Kept
from service.problems import OPEN, documented

router = APIRouter(prefix="/admin", tags=["admin"])
scraping = APIRouter(tags=["operations"])


async def kept(request: Request) -> Kept[Figures]:
    """The figures, as they were seconds ago."""
    return cast("Kept[Figures]", request.app.state.figures)


KeptFigures = Annotated[Kept[Figures], Depends(kept)]


@router.get("/metrics", summary="Get metrics as JSON", responses=documented())
async def read_metrics(figures: KeptFigures) -> Figures:
    """Get the state of the service in figures, such as queue depth, oldest wait, overdue requests
    and durations. They are read from the database at most every five seconds, however many ask."""
    return await figures.get()


@scraping.get(
    "/metrics",
    summary="Get metrics for Prometheus",
    response_class=Response,
    responses={
        200: {"content": {"text/plain": {"schema": {"type": "string"}}}},
        **documented(Unauthorized, TooManyAttempts, Unavailable, common=OPEN),
    },
    openapi_extra={"security": [{}, {"HTTPBearer": []}]},
)
async def scrape_metrics(request: Request) -> Response:
    """Get the same figures in the text format of Prometheus, with those of this process. It needs a
    key only where `LETHE_METRICS_KEY` is set: that one, or the key of the installation."""
    told = await cast("Kept[bytes]", request.app.state.exposition).get()
    return Response(told, media_type=CONTENT_TYPE_PLAIN_0_0_4)
