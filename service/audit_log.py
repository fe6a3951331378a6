"""The audit trail, for reading: who did what to which row, oldest first."""

from typing import Any
from uuid import UUID

from fastapi import APIRouter
from sqlalchemy import select

from service.dependencies import Sessions
from service.errors import InvalidCursor
from service.fields import Instant, Out
from service.paging import Page, Paging
from service.problems import documented
from service.tables import AuditEvent

router = APIRouter(prefix="/audit", tags=["audit"])

LAST = 2**63


class AuditEventRead(Out):
    """One state change."""

    id: int
    at: Instant
    actor: str
    """`api` or `worker`."""

    event: str
    """What happened, as `subject.past_participle`."""

    subject_id: UUID
    """The request, job, model, dataset, version or webhook it happened to."""

    data: dict[str, Any]
    """Ids of rows, counts and digests; never a sample id."""


@router.get("/events", responses=documented(InvalidCursor))
async def list_audit_events(
    sessions: Sessions, window: Paging, subject_id: UUID | None = None
) -> Page[AuditEventRead]:
    """Everything that happened, oldest first: to all, or to one request, job, model or dataset."""
    after = window.after(_event_id)
    chosen = select(AuditEvent).order_by(AuditEvent.id).limit(window.limit + 1)
    if after is not None:
        chosen = chosen.where(AuditEvent.id > after)
    if subject_id is not None:
        chosen = chosen.where(AuditEvent.subject_id == subject_id)
    async with sessions.begin() as session:
        rows = (await session.scalars(chosen)).all()
    rows, next_cursor = window.cut(rows, lambda event: event.id)
    return Page(items=[AuditEventRead.model_validate(row) for row in rows], next_cursor=next_cursor)


def _event_id(given: str) -> int:
    event_id = int(given)
    if not 0 <= event_id < LAST:
        raise ValueError("out of range")
    return event_id
