"""What exists while the API runs, and which routers it serves.

`uvicorn --factory service.app:from_environment --http service.connections:Connection --ws none`
"""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import Depends, FastAPI
from fastapi.routing import APIRoute
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from starlette.types import ASGIApp

from domain import __version__, doorbell, environment, log
from domain.database import async_engine, async_sessions
from domain.settings import ApiSettings
from service import admin, documentation, figures, health, memory, middleware, problems, prometheus
from service.attempts import FailedAttempts
from service.audit.router import router as audit
from service.certificates.router import router as certificates
from service.datasets.router import router as datasets
from service.deletion_requests.router import router as deletion_requests
from service.estimates.router import router as estimates
from service.jobs.router import router as jobs
from service.kept import Kept
from service.models.router import router as models
from service.subjects.router import router as subjects
from service.suppression.router import router as suppression
from service.webhooks.router import router as webhooks

DESCRIPTION = """
Lethe makes trained classifiers forget.

Register a dataset, then a model that was trained on it. Submit a deletion request that names
samples, and follow its `Location` until it is `completed`. Errors are `application/problem+json`
(RFC 9457); match on their `type`.
"""


WATCHING = 2
"""Connections for what is asked without a key: as many as can be busy with it, however many ask."""


class Api(FastAPI):
    """The application, with our headers on all that it answers, a crash included."""

    def build_middleware_stack(self) -> ASGIApp:
        """FastAPI's own, and the headers around it."""
        return middleware.with_headers(super().build_middleware_stack())

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document, made once."""
        if not self.openapi_schema:
            self.openapi_schema = problems.complete(super().openapi())
        return self.openapi_schema


def create_app(settings: ApiSettings) -> FastAPI:
    """The API with these settings. Connects to nothing until it is asked."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, int]]:
        engine = async_engine(settings.database_url)
        watching = async_engine(settings.database_url, connections=WATCHING)
        app.state.sessions, app.state.transactions = async_sessions(engine), engine.begin
        watch(app, async_sessions(watching))
        app.state.queue = doorbell.queue(settings.broker_url)
        yield {"max_body_bytes": settings.max_body_bytes}  # `service.connections` reads it
        app.state.queue.close()
        for kept in (app.state.exposition, app.state.figures, app.state.readiness):
            await kept.close()
        await watching.dispose()
        await engine.dispose()

    app = Api(
        title="Lethe",
        version=__version__,
        description=DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url=documentation.DOCUMENT if settings.docs else None,
        redirect_slashes=False,  # a redirect would repeat the `Host` of whoever asks
        generate_unique_id_function=_function_name,
    )
    if settings.docs:
        documentation.install(app)
    app.state.settings, app.state.failed = settings, FailedAttempts()
    app.add_middleware(middleware.Gate, settings=settings, failed=app.state.failed)
    problems.install(app)
    for router in (  # looked through in this order: what is asked most often comes first
        deletion_requests, datasets, models, estimates, certificates, jobs, webhooks, suppression,
        subjects, audit, admin.router,
    ):  # fmt: skip
        app.include_router(router, prefix="/v1", dependencies=[Depends(middleware.bearer)])
    app.include_router(health.router)
    app.include_router(admin.scraping)
    return app


def watch(app: FastAPI, sessions: async_sessionmaker[AsyncSession]) -> None:
    """Have what anybody may ask looked for once for all who ask, on these sessions."""
    app.state.figures = Kept(lambda: figures.read(sessions), fresh_s=5, stale_s=60, patience_s=1)

    async def told() -> bytes:
        return prometheus.exposition(await app.state.figures.get(), app.state.failed)

    app.state.exposition = Kept(told, fresh_s=1)  # to write it costs more than to send it
    app.state.readiness = Kept(lambda: health.look(sessions, app.state.settings), fresh_s=1)


def from_environment() -> FastAPI:
    """The API with the settings in the environment."""
    settings = environment.read(ApiSettings)
    log.configure(settings.log_format, process="api")
    for name in ("uvicorn", "uvicorn.access"):  # have handlers of their own by now, if they may log
        logger = logging.getLogger(name)
        logger.propagate, logger.handlers = bool(logger.handlers), []
    app = create_app(settings)
    memory.settle()
    return app


def _function_name(route: APIRoute) -> str:
    """Operation ids that stay when paths change."""
    return route.name
