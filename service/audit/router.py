"""The routes of the audit trail: what happened, and the proofs of it. HTTP only."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Response
from fastapi.responses import JSONResponse, PlainTextResponse

from domain.errors import InvalidCursor, InvalidRequest, NoCheckpoint, NotFound, SizeUnknown
from service.audit import operations
from service.audit.operations import LAST
from service.audit.schemas import AuditEventRead, ConsistencyProof, InclusionProof
from service.dependencies import Sessions
from service.paging import Page, Paging
from service.problems import documented

router = APIRouter(prefix="/audit", tags=["audit"])

OnlySubject = Annotated[
    UUID | None,
    Query(
        description="Return only events about the request, job, model, dataset, version, webhook "
        "or key with this id."
    ),
]
Start = Annotated[int, Query(ge=0, lt=LAST, description="The position of the first entry, from 0.")]
Limit = Annotated[int, Query(ge=1, le=10_000, description="The largest number of entries.")]
Position = Annotated[
    int | None,
    Query(ge=0, lt=LAST, description="The position of the event to prove, counted from 0."),
]
Size = Annotated[
    int | None,
    Query(ge=1, lt=LAST, description="The size of a checkpoint; leave it out for the newest."),
]
Old = Annotated[
    int | None,
    Query(ge=1, lt=LAST, description="The size of the older checkpoint that the log continues."),
]
Since = Annotated[
    int | None,
    Query(
        ge=1,
        lt=LAST,
        description="The size of a checkpoint that you kept; the bundle then proves that the log "
        "continues it.",
    ),
]
OfRequest = Annotated[UUID, Query(description="The id of the deletion request.")]


@router.get("/events", summary="List audit events", responses=documented(InvalidCursor))
async def list_audit_events(
    sessions: Sessions, window: Paging, subject_id: OnlySubject = None
) -> Page[AuditEventRead]:
    """List everything that happened, oldest first: all events, or those about one subject."""
    return await operations.find(sessions, window, subject_id=subject_id)


JSON_LINES = "application/jsonl"


@router.get(
    "/entries",
    summary="Read the log",
    response_class=Response,
    responses={200: {"content": {JSON_LINES: {"schema": {"type": "string"}}}}, **documented()},
)
async def list_entries(sessions: Sessions, start: Start = 0, limit: Limit = 1_000) -> Response:
    """Read the log itself from position `start` on, one entry per line: the bytes that are hashed.

    To read all of it, ask again from the position after the last line until there are no lines.
    `verifier/verify.py log` checks the lines against a checkpoint.
    """
    found = await operations.entries(sessions, start=start, limit=limit)
    lines = b"".join(entry + b"\n" for entry in found)
    return Response(lines, media_type=JSON_LINES)


@router.get(
    "/checkpoint",
    summary="Get a checkpoint of the log",
    response_class=PlainTextResponse,
    responses=documented(NoCheckpoint, NotFound),
)
async def get_checkpoint(sessions: Sessions, size: Size = None) -> PlainTextResponse:
    """Get the newest checkpoint of the log, or the one of a given size, as a signed note (C2SP).

    Keep it: whoever holds an older checkpoint can prove that nothing before it was changed.
    """
    return PlainTextResponse(await operations.checkpoint(sessions, size))


@router.get(
    "/proof",
    summary="Get a proof from the log",
    responses=documented(InvalidRequest, NoCheckpoint, SizeUnknown),
)
async def get_proof(
    sessions: Sessions, position: Position = None, old: Old = None, size: Size = None
) -> InclusionProof | ConsistencyProof:
    """Prove that the event at `position` is in the log, or that the log continues an older one with
    `old` events. Give one of the two.

    `size` is the size of the checkpoint that the proof leads to.
    """
    return await operations.prove(sessions, position=position, old=old, size=size)


@router.get(
    "/bundle",
    summary="Get the evidence about a deletion request",
    response_class=JSONResponse,
    responses=documented(NoCheckpoint, NotFound, SizeUnknown),
)
async def get_bundle(sessions: Sessions, request: OfRequest, since: Since = None) -> JSONResponse:
    """Get everything that an auditor needs to check a deletion request offline, with
    `verifier/verify.py`."""
    return JSONResponse(await operations.bundle_of(sessions, request, since=since))
