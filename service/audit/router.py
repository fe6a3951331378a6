"""The audit trail, for reading: what happened, and the proofs that nobody changed it since."""

from collections.abc import Sequence
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query
from fastapi.responses import JSONResponse, PlainTextResponse
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from domain import trail
from domain.errors import InvalidCursor, InvalidRequest, NoCheckpoint, NotFound, SizeUnknown
from domain.tables import AuditEvent, LogCheckpoint, LogLeaf
from evidence import merkle, tree
from evidence.bundle import bundle, continuing, newest_checkpoint
from evidence.merkle import Span
from service.dependencies import Sessions
from service.fields import Instant, Out
from service.paging import Page, Paging
from service.problems import documented

router = APIRouter(prefix="/audit", tags=["audit"])

LAST = 2**63
Size = Annotated[int, Query(ge=1, lt=LAST)]


class AuditEventRead(Out):
    """One state change."""

    position: int
    """Its place in the log, from 0."""

    id: int
    at: Instant
    actor: str
    """`api` or `worker`."""

    event: str
    """What happened, as `subject.past_participle`."""

    subject_id: UUID
    """The request, job, model, dataset, version, webhook or key it happened to."""

    data: dict[str, Any]
    """Ids of rows, counts and digests; never a sample id."""


class Proof(Out):
    """Hashes, in base64, from which whoever knows one root can compute the other (RFC 9162)."""

    size: int
    """Of the checkpoint that it leads to."""

    proof: list[str]


class InclusionProof(Proof):
    """That an event is in the log, at its position."""

    position: int
    leaf: str
    """Canonical JSON (RFC 8785) of the event: what is hashed."""


class ConsistencyProof(Proof):
    """That a log only grew since an older checkpoint."""

    old: int


@router.get("/events", responses=documented(InvalidCursor))
async def list_audit_events(
    sessions: Sessions, window: Paging, subject_id: UUID | None = None
) -> Page[AuditEventRead]:
    """Everything that happened, oldest first: to all, or to one request, job, model or dataset."""
    after = window.after(_position)
    chosen = (
        select(AuditEvent, LogLeaf.position)
        .join(LogLeaf, LogLeaf.event_id == AuditEvent.id)
        .order_by(LogLeaf.position)
        .limit(window.limit + 1)
    )
    if after is not None:
        chosen = chosen.where(LogLeaf.position > after)
    if subject_id is not None:
        chosen = chosen.where(AuditEvent.subject_id == subject_id)
    async with sessions.begin() as session:
        rows = (await session.execute(chosen)).all()
    rows, next_cursor = window.cut(rows, lambda row: row.position)
    return Page(items=[_read(*row) for row in rows], next_cursor=next_cursor)


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
    chosen = (
        select(AuditEvent, LogLeaf.position)
        .join(LogLeaf, LogLeaf.event_id == AuditEvent.id)
        .where(LogLeaf.position >= start)
        .order_by(LogLeaf.position)
        .limit(limit)
    )
    async with sessions.begin() as session:
        lines = [trail.entry(*row) + b"\n" for row in await session.execute(chosen)]
    return PlainTextResponse(b"".join(lines), media_type="application/jsonl")


@router.get(
    "/checkpoint", response_class=PlainTextResponse, responses=documented(NoCheckpoint, NotFound)
)
async def get_checkpoint(sessions: Sessions, size: Size | None = None) -> PlainTextResponse:
    """The newest checkpoint of the log, or that of one size: a signed note (C2SP), as text.

    Keep it: whoever holds an older one can prove that nothing before it was changed.
    """
    async with sessions.begin() as session:
        if size is None:
            found: LogCheckpoint | None = await newest_checkpoint(session)
        else:
            found = await session.get(LogCheckpoint, size)
    if found is None:
        raise NotFound(f"No checkpoint was made when the log had {size} events.")
    return PlainTextResponse(found.note)


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
    async with sessions.begin() as session:
        newest = await newest_checkpoint(session)
        length = newest.size if size is None else size
        if length > newest.size:
            raise SizeUnknown(f"The newest checkpoint is of {newest.size} events.")
        if old is not None and position is None:
            hashes = await _proof(session, continuing(old, length))
            return ConsistencyProof(old=old, size=length, proof=hashes)
        if old is not None or position is None:
            raise InvalidRequest("Send `position` or `old`: one of them.")
        if position >= length:
            raise SizeUnknown(f"The checkpoint is of {length} events, the first at position 0.")
        hashes = await _proof(session, merkle.inclusion(position, length))
        event = (
            await session.scalars(
                select(AuditEvent)
                .join(LogLeaf, LogLeaf.event_id == AuditEvent.id)
                .where(LogLeaf.position == position)
            )
        ).one()
    leaf = trail.entry(event, position).decode()
    return InclusionProof(position=position, leaf=leaf, size=length, proof=hashes)


@router.get(
    "/bundle",
    response_class=JSONResponse,
    responses=documented(NoCheckpoint, NotFound, SizeUnknown),
)
async def get_bundle(sessions: Sessions, request: UUID, since: Size | None = None) -> JSONResponse:
    """All that an auditor needs to check a deletion request offline, with `verifier/verify.py`.

    `since`: the size of a checkpoint you kept; the bundle then proves that the log continues it.
    """
    async with sessions.begin() as session:
        return JSONResponse(await bundle(session, request, since=since))


async def _proof(session: AsyncSession, spans: Sequence[Span]) -> list[str]:
    nodes = tree.by_node(await session.execute(tree.fetching(spans)))
    return tree.proof(spans, nodes)


def _read(event: AuditEvent, position: int) -> AuditEventRead:
    columns = {
        name: getattr(event, name) for name in AuditEventRead.model_fields if name != "position"
    }
    return AuditEventRead(position=position, **columns)


def _position(given: str) -> int:
    position = int(given)
    if not 0 <= position < LAST:
        raise ValueError("out of range")
    return position
