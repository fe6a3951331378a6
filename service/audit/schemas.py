"""What comes out of the routes of the audit trail."""

from typing import Any
from uuid import UUID

from service.fields import Instant, Out


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
