"""What can be asked about certificates. One function, one transaction."""

from uuid import UUID

from sqlalchemy import func, select

from domain.errors import NotCertified, NotCertifiedYet, NotFound
from domain.states import MOVING_REQUESTS, RequestStatus
from domain.tables import Certificate, DeletionRequest
from service.dependencies import Sessions

UNCERTIFIED = {
    RequestStatus.NEEDS_REVIEW: "No attempt got a better verdict than `fail`: a person decides "
    "first, with `POST /v1/deletion-requests/{id}/decision`. If the version is accepted, there "
    "will be a certificate.",
    RequestStatus.FAILED: "The request failed; its `targets` say why. Once its jobs are tried "
    "again and it is completed, there will be a certificate.",
    RequestStatus.CANCELLED: "The request was cancelled: what was not done is not certified. What "
    "its jobs did is under `/v1/jobs`.",
    RequestStatus.REFUSED: "The request was refused: what was not done is not certified. Its "
    "`decisions` say on what ground.",
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
        raise NotFound(f"There is no deletion request {request_id}.")
    if newest is not None:
        raise NotFound(f"This request has no certificate {number}: they go from 1 to {newest}.")
    raise _uncertified(request.status)


def _uncertified(status: RequestStatus) -> NotCertified | NotCertifiedYet:
    if status in MOVING_REQUESTS:
        return NotCertifiedYet(
            f"The request is {status}; it is certified once it is completed. Ask again."
        )
    if status is RequestStatus.COMPLETED:
        return NotCertifiedYet(
            "The request is completed; its certificate waits for a signed checkpoint of the log "
            "that covers this. Ask again."
        )
    return NotCertified(UNCERTIFIED[status])
