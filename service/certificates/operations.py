"""What can be asked about certificates. One function, one transaction."""

from uuid import UUID

from sqlalchemy import func, select

from domain.errors import NotCertified, NotCertifiedYet, NotFound, no_such
from domain.states import MOVING_REQUESTS, RequestStatus
from domain.tables import Certificate, DeletionRequest
from service.dependencies import Sessions

UNCERTIFIED = {
    RequestStatus.NEEDS_REVIEW: "Every round got the verdict `fail`, so a person must decide "
    "first, with `POST /v1/deletion-requests/{id}/decision`. A certificate is issued if the "
    "version is accepted.",
    RequestStatus.FAILED: "The request failed, and its `targets` say why. Fix that and retry its "
    "jobs with `POST /v1/jobs/{id}/retry`; a certificate is issued once the request is completed.",
    RequestStatus.CANCELLED: "The request was cancelled, so there is nothing to certify. See "
    "`/v1/jobs` for what its jobs did before.",
    RequestStatus.REFUSED: "The request was refused, so there is nothing to certify. See its "
    "`decisions` for the grounds.",
}
"""Why a request with this status has no certificate, and what to do."""


async def get(sessions: Sessions, request_id: UUID, number: int | None) -> Certificate:
    """The newest certificate of a request, or the one with this number.

    Raises:
        NotFound: there is no such request, or it has no certificate of that number.
        NotCertifiedYet: the request is open, or its certificate is about to be issued.
        NotCertified: requests that ended so get none.
    """
    async with sessions.begin() as session:
        request = await session.get(DeletionRequest, request_id)
        newest = await session.scalar(
            select(func.max(Certificate.number)).filter_by(request_id=request_id)
        )
        wanted = newest if number is None else number
        found = await session.get(Certificate, (request_id, wanted)) if newest else None
    if found is not None:
        return found
    if request is None:
        raise no_such(f"deletion request {request_id}", listed_at="/v1/deletion-requests")
    if newest is not None:
        raise NotFound(
            f"This request has no certificate {number}; its certificates are numbered from 1 to "
            f"{newest}."
        )
    raise _uncertified(request.status)


def _uncertified(status: RequestStatus) -> NotCertified | NotCertifiedYet:
    if status in MOVING_REQUESTS:
        return NotCertifiedYet(
            f"The request is {status}; its certificate is issued once it is completed. Ask again "
            "later."
        )
    if status is RequestStatus.COMPLETED:
        return NotCertifiedYet(
            "The request is completed. Its certificate is issued as soon as a signed checkpoint of "
            "the log covers this; ask again in a few seconds."
        )
    return NotCertified(UNCERTIFIED[status])
