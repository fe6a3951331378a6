"""What people can be shown of a deletion request, and be spared. One function, one transaction."""

import asyncio
from base64 import b64encode
from uuid import UUID

from domain import shredding
from domain.errors import CannotShred, KeyGone, NotNamed, no_such
from domain.states import FINAL_REQUESTS
from domain.tables import DeletionRequest, RequestKey
from evidence import commitments
from evidence.commitments import Opening
from service.deletion_requests.operations import COMMITTED_AT_ONCE
from service.deletion_requests.schemas import InclusionCreate, InclusionRead, NamedAs
from service.dependencies import Sessions


async def show_inclusion(
    sessions: Sessions, request_id: UUID, wanted: InclusionCreate
) -> InclusionRead:
    """What proves that the request named this sample or this subject.

    Raises:
        NotFound: there is no such request.
        KeyGone: it was shredded, or is from before there were commitments.
        NotNamed: it named others.
    """
    async with sessions.begin() as session:
        request = await session.get(DeletionRequest, request_id)
        kept = await session.get(RequestKey, request_id)
    if request is None:
        raise no_such(f"deletion request {request_id}", listed_at="/v1/deletion-requests")
    if kept is None or request.commitment is None:
        raise KeyGone(
            "This request was shredded, so nothing links it to the ids it named any more."
            if request.shredded_at
            else "This request was received before commitments were introduced, so nothing can be "
            "proven about the ids it named."
        )
    if request.samples + request.subjects <= COMMITTED_AT_ONCE:
        named_as, opening = _opened(kept, wanted)
    else:
        named_as, opening = await asyncio.to_thread(_opened, kept, wanted)
    if opening is None:
        raise NotNamed(
            f"The request did not name this {named_as.value}. Check its spelling, including upper "
            "and lower case."
        )
    return InclusionRead(
        named_as=named_as,
        commitment=request.commitment,
        blind=opening.blind.hex(),
        index=opening.index,
        size=opening.size,
        proof=[b64encode(each).decode() for each in opening.proof],
    )


def _opened(kept: RequestKey, wanted: InclusionCreate) -> tuple[NamedAs, Opening | None]:
    """How it was named, and what shows that; None where it was not."""
    if wanted.sample_id is not None:
        return NamedAs.SAMPLE, commitments.open_for(kept.key, kept.entries, wanted.sample_id)
    for is_known, named_as in ((True, NamedAs.SUBJECT), (False, NamedAs.UNKNOWN_SUBJECT)):
        leaf = commitments.of_subject(str(wanted.subject), is_known=is_known)
        opening = commitments.open_for(kept.key, kept.entries, leaf)
        if opening is not None:
            return named_as, opening
    return NamedAs.SUBJECT, None


async def shred(sessions: Sessions, request_id: UUID) -> None:
    """Destroy what links the request to a person; nothing, when that was done before.

    Raises:
        NotFound: there is no such request.
        CannotShred: it has not come to its end.
    """
    async with sessions.begin() as session:
        request = await session.get(DeletionRequest, request_id, with_for_update=True)
        if request is None:
            raise no_such(f"deletion request {request_id}", listed_at="/v1/deletion-requests")
        if request.status not in FINAL_REQUESTS:
            raise CannotShred(
                f"This request is {request.status}, and its contents are needed until it is "
                "completed, cancelled or refused. Wait for that, or cancel it first with "
                f"`POST /v1/deletion-requests/{request_id}/cancel`."
            )
        await session.run_sync(shredding.shred, [request_id], actor="api")
