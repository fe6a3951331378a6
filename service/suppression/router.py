"""The routes of suppressions. HTTP only."""

from typing import Annotated

from fastapi import APIRouter, Path

from domain.errors import InvalidCursor, NotFound, TooManySamples
from service.dependencies import Sessions, Settings
from service.fields import Name
from service.paging import Page, Paging
from service.problems import documented
from service.suppression import operations
from service.suppression.schemas import LiftCreate, Lifted, LiftRead

router = APIRouter(prefix="/datasets/{name}/suppression", tags=["datasets"])

DatasetName = Annotated[Name, Path(description="The name of the dataset.")]


@router.post("/lift", summary="Lift suppressions", responses=documented(NotFound, TooManySamples))
async def lift_suppression(
    name: DatasetName, body: LiftCreate, sessions: Sessions, settings: Settings
) -> Lifted:
    """Let samples that models have forgotten be trained on again, as when a person gives consent
    anew. Who answers for it and why is stored, and the audit trail is told.

    What was certified stays true: the models that have forgotten the samples do not learn them
    again. Train outside, and register what comes of it as a new model. A new deletion request that
    names a sample suppresses it again at once. Sending the same twice changes nothing.
    """
    return await operations.lift(sessions, name, body, limit=settings.max_samples_per_request)


@router.get(
    "/lifts", summary="List lifted suppressions", responses=documented(NotFound, InvalidCursor)
)
async def list_lifts(name: DatasetName, sessions: Sessions, window: Paging) -> Page[LiftRead]:
    """List who lifted suppressions of the dataset and why, newest first. No sample id is kept."""
    return await operations.find(sessions, name, window)
