"""The audit trail: one event for every state change, in the transaction that makes it.

What there is to tell stands in `domain.events`: sample ids, subject references and free-text
reasons never enter the trail; counts and digests do.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Literal
from uuid import UUID

import rfc8785
from sqlalchemy import ARRAY, ColumnElement, String, Uuid, func, insert, literal, select
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from domain.events import Event
from domain.tables import AuditEvent

Actor = Literal["api", "worker"]

INSTANT = 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'
"""How Postgres writes what `instant` writes, in UTC."""


def record(session: Session | AsyncSession, actor: Actor, subject_id: UUID, event: Event) -> None:
    """Add one event to the session's transaction: it is stored if, and only if, the change is.

    Raises:
        rfc8785.CanonicalizationError: the data has no canonical form, so nobody could sign it.
    """
    data = event.data()
    rfc8785.dumps(data)
    session.add(AuditEvent(actor=actor, event=event.event, subject_id=subject_id, data=data))


def record_each(session: Session, actor: Actor, events: Sequence[tuple[UUID, Event]]) -> None:
    """The same for many subjects at once, each with its event, in their order."""
    if not events:
        return
    rows = [(subject_id, event.event, event.data()) for subject_id, event in events]
    subjects, names, told = (list(column) for column in zip(*rows, strict=True))
    listed = (
        func.unnest(
            literal(subjects, ARRAY(Uuid)),
            literal(names, ARRAY(String)),
            literal(told, ARRAY(JSONB)),
        )
        .table_valued("subject_id", "event", "data", name="listed")
        .render_derived()
    )
    session.flush()  # what was recorded before stands before it
    session.execute(
        insert(AuditEvent).from_select(
            ["actor", "event", "subject_id", "data"],
            select(literal(actor), listed.c.event, listed.c.subject_id, listed.c.data),
        )
    )


def instant(at: datetime) -> str:
    """As the log and certificates write it: RFC 3339 in UTC, to the microsecond."""
    return at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def instant_of(at: Any) -> ColumnElement[str]:
    """The same, of what the database knows."""
    return func.to_char(func.timezone("UTC", at), INSTANT)
