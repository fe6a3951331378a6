"""The audit trail as the log has it: the bytes of each event, and which are about a request."""

from uuid import UUID

import rfc8785
from sqlalchemy import CompoundSelect, Select, func, literal, or_, select, union

from domain.events import PreviewFetched, WeightsFetched
from domain.tables import (
    AuditEvent,
    DeletionTarget,
    Job,
    LogLeaf,
    ModelVersion,
    ReviewDecision,
    SigningKey,
)
from domain.trail import instant

FETCHES = (WeightsFetched.event, PreviewFetched.event)
"""Somebody got something of a version; nothing happened to it."""


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
    versions those made and replaced; and the keys that sign the log. Downloads of such a version
    and looks at its preview are left out: they say nothing of the request, and there may be many.
    """
    served = select(DeletionTarget.job_id).where(
        DeletionTarget.request_id == request_id, DeletionTarget.job_id.is_not(None)
    )
    decided = select(ReviewDecision.job_id).where(ReviewDecision.request_id == request_id)
    replaced = func.coalesce(ModelVersion.parent_id, Job.base_version_id)
    made = or_(ModelVersion.job_id.in_(served), ModelVersion.job_id.in_(decided))
    subjects: CompoundSelect[UUID] = union(
        select(literal(request_id)),
        served,
        decided,
        select(ModelVersion.id).where(made),
        select(replaced)
        .join(Job, Job.id == ModelVersion.job_id)
        .where(made, replaced.is_not(None)),
        select(SigningKey.id),
    )
    return (
        select(AuditEvent, LogLeaf.position)
        .join(LogLeaf, LogLeaf.event_id == AuditEvent.id)
        .where(AuditEvent.subject_id.in_(subjects), AuditEvent.event.not_in(FETCHES))
        .order_by(LogLeaf.position)
    )
