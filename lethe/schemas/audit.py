"""The audit trail, and the proofs that nobody changed it."""

from datetime import datetime
from typing import Any
from uuid import UUID

from lethe.schemas.common import Result


class AuditEvent(Result):
    """One state change."""

    position: int
    """Its place in the log, from 0."""

    id: int
    at: datetime
    actor: str
    event: str
    subject_id: UUID
    data: dict[str, Any]


class InclusionProof(Result):
    """That an event is in the log, at its position (RFC 9162)."""

    size: int
    """Of the checkpoint that the proof leads to."""

    proof: list[str]
    position: int
    leaf: str
    """Canonical JSON (RFC 8785) of the event: what is hashed."""


class ConsistencyProof(Result):
    """That a log only grew since an older checkpoint (RFC 9162)."""

    size: int
    proof: list[str]
    old: int
