"""What exists while the API runs, and which routers it serves.

`uvicorn --factory service.app:from_environment`
"""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import Depends, FastAPI
from fastapi.routing import APIRoute
from fastapi_offline import FastAPIOffline

from domain import __version__, doorbell, log
from domain.database import async_engine, async_sessions
from domain.settings import ApiSettings
from service import admin, health, middleware, problems
from service.audit.router import router as audit
from service.certificates.router import router as certificates
from service.datasets.router import router as datasets
from service.deletion_requests.router import router as deletion_requests
from service.estimates.router import router as estimates
from service.jobs.router import router as jobs
from service.models.router import router as models
from service.webhooks.router import router as webhooks

DESCRIPTION = """
Lethe makes trained classifiers forget.

Register a dataset, then a model that was trained on it. Submit a deletion request that names
samples, and follow its `Location` until it is `completed`. Errors are `application/problem+json`
(RFC 9457); match on their `type`.
"""


def create_app(settings: ApiSettings) -> FastAPI:
    """The API with these settings. Connects to nothing until it is asked."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        engine = async_engine(settings.database_url)
        app.state.sessions, app.state.transactions = async_sessions(engine), engine.begin
        app.state.queue = doorbell.queue(str(settings.broker_url))
        yield
        app.state.queue.close()
        await engine.dispose()

    app: FastAPI = FastAPIOffline(
        title="Lethe",
        version=__version__,
        description=DESCRIPTION,
        lifespan=lifespan,
        redoc_url=None,
        static_url=middleware.DOCS_ASSETS,
        generate_unique_id_function=_function_name,
    )
    app.state.settings = settings
    app.add_middleware(middleware.Gate, settings=settings)
    problems.install(app)
    for router in (  # looked through in this order: what is asked most often comes first
        deletion_requests, datasets, models, estimates, certificates, jobs, webhooks,
        audit, admin.router,
    ):  # fmt: skip
        app.include_router(router, prefix="/v1", dependencies=[Depends(middleware.bearer)])
    app.include_router(health.router)
    app.include_router(admin.scraping)
    return app


def from_environment() -> FastAPI:
    """The API with the settings in the environment."""
    settings = ApiSettings()
    log.configure(settings.log_format, process="api")
    for name in ("uvicorn", "uvicorn.access"):  # have handlers of their own by now, if they may log
        logger = logging.getLogger(name)
        logger.propagate, logger.handlers = bool(logger.handlers), []
    return create_app(settings)


def _function_name(route: APIRoute) -> str:
    """Operation ids that stay when paths change."""
    return route.name
