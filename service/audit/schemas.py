"""What comes out of the routes of the audit trail."""

from typing import Any
from uuid import UUID

from service.fields import Instant, Out


class AuditEventRead(Out):
    """One state change, as the audit trail recorded it."""

    position: int
    """The event's position in the log, counted from 0."""

    id: int
    """The number of the event's row in the database; part of what is hashed."""

    at: Instant
    """When the event was recorded."""

    actor: str
    """Which process made the change: `api` or `worker`."""

    event: str
    """What happened, as `subject.past_participle`, for example `request.received`."""

    subject_id: UUID
    """The id of the request, job, model, dataset, version, webhook or key that the event is
    about."""

    data: dict[str, Any]
    """Details of the event: ids of rows, counts and digests, but never a sample id."""


class Proof(Out):
    """Hashes from which anyone who knows one root can compute the other (RFC 9162)."""

    size: int
    """Number of events covered by the checkpoint that the proof leads to."""

    proof: list[str]
    """The hashes of the proof in base64, in the order in which RFC 9162 uses them."""


class InclusionProof(Proof):
    """A proof that an event is in the log, at its position."""

    position: int
    """The event's position in the log, counted from 0."""

    leaf: str
    """The event as canonical JSON (RFC 8785): the text whose bytes are hashed."""


class ConsistencyProof(Proof):
    """A proof that the log only grew since an older checkpoint."""

    old: int
    """Number of events covered by the older checkpoint."""
