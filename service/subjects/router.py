"""The routes of subjects. HTTP only."""

from fastapi import APIRouter

from domain.errors import Deleted, NoGroups, NotFound, NotReady, TooManySamples
from service.dependencies import Sessions, Settings
from service.problems import documented
from service.subjects import operations
from service.subjects.schemas import LookupCreate, LookupRead

router = APIRouter(prefix="/subjects", tags=["deletion requests"])


@router.post(
    "/lookup",
    summary="Look subjects up",
    responses=documented(NotFound, NotReady, Deleted, NoGroups, TooManySamples),
)
async def lookup_subjects(body: LookupCreate, sessions: Sessions, settings: Settings) -> LookupRead:
    """See what a deletion request for these people, accounts or households would touch: datasets,
    models, numbers of samples, and what may still hold them.

    Nothing is changed, and none of the subjects is kept. The audit trail is told that somebody
    looked, with counts alone. This is a POST so that no subject appears in a URL.
    """
    return await operations.look_up(sessions, body, most=settings.max_samples_per_request)
