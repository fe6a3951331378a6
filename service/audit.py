"""The audit trail: one event for every state change, in the transaction that makes it.

Sample ids, subject references and free-text reasons never enter it; counts and digests do.
"""

from collections.abc import Sequence
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import ARRAY, ColumnElement, Insert, String, Uuid, func, insert, literal, select
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from service.tables import AuditEvent

Actor = Literal["api", "worker"]


def record(
    session: Session | AsyncSession, actor: Actor, event: str, subject_id: UUID, **data: Any
) -> None:
    """Add one event to the session's transaction: it is stored if, and only if, the change is."""
    session.add(AuditEvent(actor=actor, event=event, subject_id=subject_id, data=data))


def recording(
    actor: Actor, event: str, subject_id: ColumnElement[UUID], data: ColumnElement[dict[str, Any]]
) -> Insert:
    """The statement that adds one event; for a part of the one that makes the change."""
    values = select(literal(actor), literal(event), subject_id, data)
    return insert(AuditEvent).from_select(["actor", "event", "subject_id", "data"], values)


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
