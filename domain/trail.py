"""The audit trail: one event for every state change, in the transaction that makes it.

Sample ids, subject references and free-text reasons never enter it; counts and digests do.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Literal
from uuid import UUID

import rfc8785
from sqlalchemy import (
    ARRAY,
    ColumnElement,
    CompoundSelect,
    Select,
    String,
    Uuid,
    func,
    insert,
    literal,
    or_,
    select,
    union,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from domain.tables import (
    AuditEvent,
    DeletionTarget,
    LogLeaf,
    ModelVersion,
    ReviewDecision,
    SigningKey,
)

Actor = Literal["api", "worker"]

INSTANT = 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'
"""How Postgres writes what `instant` writes, in UTC."""


def record(
    session: Session | AsyncSession, actor: Actor, event: str, subject_id: UUID, **data: Any
) -> None:
    """Add one event to the session's transaction: it is stored if, and only if, the change is.

    Raises:
        rfc8785.CanonicalizationError: the data has no canonical form, so nobody could sign it.
    """
    rfc8785.dumps(data)
    session.add(AuditEvent(actor=actor, event=event, subject_id=subject_id, data=data))


def record_each(session: Session, actor: Actor, events: Sequence[tuple[UUID, str]]) -> None:
    """The same for many subjects at once, each with its event, in their order."""
    if not events:
        return
    subjects, names = (list(column) for column in zip(*events, strict=True))
    listed = (
        func.unnest(literal(subjects, ARRAY(Uuid)), literal(names, ARRAY(String)))
        .table_valued("subject_id", "event", name="listed")
        .render_derived()
    )
    session.flush()  # what was recorded before stands before it
    session.execute(
        insert(AuditEvent).from_select(
            ["actor", "event", "subject_id", "data"],
            select(literal(actor), listed.c.event, listed.c.subject_id, literal({}, JSONB)),
        )
    )


def instant(at: datetime) -> str:
    """As the log and certificates write it: RFC 3339 in UTC, to the microsecond."""
    return at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def instant_of(at: Any) -> ColumnElement[str]:
    """The same, of what the database knows."""
    return func.to_char(func.timezone("UTC", at), INSTANT)


def entry(event: AuditEvent, position: int) -> bytes:
    """What the log says of an event, all of it: the bytes that are hashed as its leaf.

    Canonical JSON (RFC 8785) of every column and of the event's position.
    """
    return rfc8785.dumps(
        {
            "position": position,
            "id": event.id,
            "at": instant(event.at),
            "actor": event.actor,
            "event": event.event,
            "subject_id": str(event.subject_id),
            "data": event.data,
        }
    )


def about(request_id: UUID) -> Select[AuditEvent, int]:
    """The events about a request, with their positions, oldest first.

    They are about itself, the jobs that served it and those that a person decided about for it, the
    versions those made and replaced; and the keys that sign the log.
    """
    served = select(DeletionTarget.job_id).where(
        DeletionTarget.request_id == request_id, DeletionTarget.job_id.is_not(None)
    )
    decided = select(ReviewDecision.job_id).where(ReviewDecision.request_id == request_id)
    made = or_(ModelVersion.job_id.in_(served), ModelVersion.job_id.in_(decided))
    subjects: CompoundSelect[UUID] = union(
        select(literal(request_id)),
        served,
        decided,
        select(ModelVersion.id).where(made),
        select(ModelVersion.parent_id).where(made, ModelVersion.parent_id.is_not(None)),
        select(SigningKey.id),
    )
    return (
        select(AuditEvent, LogLeaf.position)
        .join(LogLeaf, LogLeaf.event_id == AuditEvent.id)
        .where(AuditEvent.subject_id.in_(subjects))
        .order_by(LogLeaf.position)
    )
