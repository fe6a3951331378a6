"""Reads the audit trail, and proves that nobody changed it since. One function, one transaction."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Select, select
from sqlalchemy.ext.asyncio import AsyncSession

from domain.errors import InvalidRequest, NotFound, SizeUnknown
from domain.tables import AuditEvent, LogCheckpoint, LogLeaf
from evidence import bundle, merkle, tree
from evidence.entries import entry
from evidence.merkle import Span
from service import paging
from service.audit.schemas import AuditEventRead, ConsistencyProof, InclusionProof
from service.dependencies import Sessions
from service.paging import Page, Window

LAST = 2**63
"""No position in the log is as high."""


async def find(
    sessions: Sessions, window: Window, *, subject_id: UUID | None
) -> Page[AuditEventRead]:
    """Events, oldest first: all, or those about one subject."""
    after = window.after(paging.position)
    chosen = _events().limit(window.limit + 1)
    if after is not None:
        chosen = chosen.where(LogLeaf.position > after)
    if subject_id is not None:
        chosen = chosen.where(AuditEvent.subject_id == subject_id)
    async with sessions.begin() as session:
        rows = (await session.execute(chosen)).all()
    rows, next_cursor = window.cut(rows, lambda row: row.position)
    return Page(items=[_read(*row) for row in rows], next_cursor=next_cursor)


async def entries(sessions: Sessions, *, start: int, limit: int) -> list[bytes]:
    """The log from position `start` on: of each event the bytes that are hashed."""
    chosen = _events().where(LogLeaf.position >= start).limit(limit)
    async with sessions.begin() as session:
        return [entry(*row) for row in await session.execute(chosen)]


async def checkpoint(sessions: Sessions, size: int | None) -> str:
    """The signed note of the newest checkpoint, or of the one of this size.

    Raises:
        NoCheckpoint: nothing is signed yet.
        NotFound: there is no checkpoint of this size.
    """
    async with sessions.begin() as session:
        if size is None:
            return (await bundle.newest_checkpoint(session)).note
        found = await session.get(LogCheckpoint, size)
    if found is None:
        raise NotFound(
            f"No checkpoint was made when the log had {size} events; leave out `size` for the "
            "newest."
        )
    return found.note


async def prove(
    sessions: Sessions, *, position: int | None, old: int | None, size: int | None
) -> InclusionProof | ConsistencyProof:
    """That an event is in the log, or that the log continues an older one.

    Args:
        position: of the event; None when `old` is given.
        old: size of the older log; None when `position` is given.
        size: of the checkpoint to prove it for; None for the newest.

    Raises:
        InvalidRequest: both of `position` and `old` are given, or neither.
        NoCheckpoint: nothing is signed yet.
        SizeUnknown: the log is not that long.
    """
    if (position is None) == (old is None):
        raise InvalidRequest("Send either `position` or `old`, and not both.")
    async with sessions.begin() as session:
        newest = await bundle.newest_checkpoint(session)
        length = newest.size if size is None else size
        if length > newest.size:
            raise SizeUnknown(
                f"The newest checkpoint covers {newest.size} events; `size` must not be greater."
            )
        if position is None:
            hashes = await _hashes(session, bundle.continuing(old, length))
            return ConsistencyProof(old=old, size=length, proof=hashes)
        if position >= length:
            raise SizeUnknown(
                f"The checkpoint covers {length} events, so `position` must be below {length}."
            )
        hashes = await _hashes(session, merkle.inclusion(position, length))
        event, _ = (await session.execute(_events().where(LogLeaf.position == position))).one()
    leaf = entry(event, position).decode()
    return InclusionProof(position=position, leaf=leaf, size=length, proof=hashes)


async def bundle_of(sessions: Sessions, request_id: UUID, *, since: int | None) -> dict[str, Any]:
    """As `evidence.bundle.bundle`."""
    async with sessions.begin() as session:
        return await bundle.bundle(session, request_id, since=since)


def _events() -> Select[AuditEvent, int]:
    """All events with their positions, in the order of the log."""
    return (
        select(AuditEvent, LogLeaf.position)
        .join(LogLeaf, LogLeaf.event_id == AuditEvent.id)
        .order_by(LogLeaf.position)
    )


async def _hashes(session: AsyncSession, spans: Sequence[Span]) -> list[str]:
    nodes = tree.by_node(await session.execute(tree.fetching(spans)))
    return tree.proof(spans, nodes)


def _read(event: AuditEvent, position: int) -> AuditEventRead:
    columns = {
        name: getattr(event, name) for name in AuditEventRead.model_fields if name != "position"
    }
    return AuditEventRead(position=position, **columns)
