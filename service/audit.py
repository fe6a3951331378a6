"""The audit trail: one event for every state change, in the transaction that makes it.

Sample ids, subject references and free-text reasons never enter it; counts and digests do.
"""

from typing import Any, Literal
from uuid import UUID

from sqlalchemy import ColumnElement, Insert, insert, literal, select
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
