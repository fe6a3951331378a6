"""The routes of the audit trail: what happened, and the proofs of it. HTTP only."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query
from fastapi.responses import JSONResponse, PlainTextResponse

from domain.errors import InvalidCursor, InvalidRequest, NoCheckpoint, NotFound, SizeUnknown
from service.audit import operations
from service.audit.operations import LAST
from service.audit.schemas import AuditEventRead, ConsistencyProof, InclusionProof
from service.dependencies import Sessions
from service.paging import Page, Paging
from service.problems import documented

router = APIRouter(prefix="/audit", tags=["audit"])

Size = Annotated[int, Query(ge=1, lt=LAST)]


@router.get("/events", responses=documented(InvalidCursor))
async def list_audit_events(
    sessions: Sessions, window: Paging, subject_id: UUID | None = None
) -> Page[AuditEventRead]:
    """Everything that happened, oldest first: to all, or to one request, job, model or dataset."""
    return await operations.find(sessions, window, subject_id=subject_id)


@router.get("/entries", response_class=PlainTextResponse, responses=documented())
async def list_entries(
    sessions: Sessions,
    start: Annotated[int, Query(ge=0, lt=LAST)] = 0,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 1_000,
) -> PlainTextResponse:
    """The log itself, from position `start` on: one entry per line, the bytes that are hashed.

    Ask again from where the lines end, until there are none; `verifier/verify.py log` checks them
    against a checkpoint.
    """
    found = await operations.entries(sessions, start=start, limit=limit)
    lines = b"".join(entry + b"\n" for entry in found)
    return PlainTextResponse(lines, media_type="application/jsonl")


@router.get(
    "/checkpoint", response_class=PlainTextResponse, responses=documented(NoCheckpoint, NotFound)
)
async def get_checkpoint(sessions: Sessions, size: Size | None = None) -> PlainTextResponse:
    """The newest checkpoint of the log, or that of one size: a signed note (C2SP), as text.

    Keep it: whoever holds an older one can prove that nothing before it was changed.
    """
    return PlainTextResponse(await operations.checkpoint(sessions, size))


@router.get("/proof", responses=documented(InvalidRequest, NoCheckpoint, SizeUnknown))
async def get_proof(
    sessions: Sessions,
    position: Annotated[int | None, Query(ge=0, lt=LAST)] = None,
    old: Size | None = None,
    size: Size | None = None,
) -> InclusionProof | ConsistencyProof:
    """That the event at `position` is in the log, or that the log continues one of `old` events.

    `size` is that of the checkpoint to prove it for; without it, the newest one.
    """
    return await operations.prove(sessions, position=position, old=old, size=size)


@router.get(
    "/bundle",
    response_class=JSONResponse,
    responses=documented(NoCheckpoint, NotFound, SizeUnknown),
)
async def get_bundle(sessions: Sessions, request: UUID, since: Size | None = None) -> JSONResponse:
    """All that an auditor needs to check a deletion request offline, with `verifier/verify.py`.

    `since`: the size of a checkpoint you kept; the bundle then proves that the log continues it.
    """
    return JSONResponse(await operations.bundle_of(sessions, request, since=since))
