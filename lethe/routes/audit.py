"""The routes of the audit trail."""

from dataclasses import replace
from typing import Any
from uuid import UUID

from lethe.calls import Call, Listed
from lethe.routes.building import get, pages
from lethe.routing import listing, route
from lethe.schemas.audit import AuditEvent, ConsistencyProof, InclusionProof
from lethe.schemas.common import Page

ENTRIES = 10_000
"""Lines fetched at once; the most that the service allows."""

PROOF = "/v1/audit/proof"


class Audit:
    """What happened, and the proofs that nobody changed it."""

    @listing
    def list_audit_events(
        self, *, subject_id: UUID | str | None = None
    ) -> Listed[Page[AuditEvent], AuditEvent]:
        """Everything that happened, oldest first: to all, or to one request, job or model."""
        return pages("/v1/audit/events", Page[AuditEvent], {"subject_id": subject_id})

    @listing
    def list_entries(self, *, start: int = 0) -> Listed[str, str]:
        """The log itself from a position on, line by line: the bytes that are hashed."""
        query = {"start": start, "limit": ENTRIES}
        first = replace(get("/v1/audit/entries", str, query), accept="application/jsonl")
        position = start

        def following(page: str) -> dict[str, object] | None:
            nonlocal position
            position += page.count("\n")
            return {"start": position} if page else None

        return Listed(first, lambda page: page.split("\n")[:-1], following)

    @route
    def read_checkpoint(self, *, size: int | None = None) -> Call[str]:
        """The newest checkpoint of the log, or that of one size: a signed note. Keep it."""
        return replace(get("/v1/audit/checkpoint", str, {"size": size}), accept="text/plain")

    @route
    def prove_inclusion(self, position: int, *, size: int | None = None) -> Call[InclusionProof]:
        """That the event at a position is in the log of a checkpoint, by default the newest."""
        return get(PROOF, InclusionProof, {"position": position, "size": size})

    @route
    def prove_consistency(self, old: int, *, size: int | None = None) -> Call[ConsistencyProof]:
        """That the log of a checkpoint, by default the newest, continues one of `old` events."""
        return get(PROOF, ConsistencyProof, {"old": old, "size": size})

    @route
    def read_bundle(
        self, request_id: UUID | str, *, since: int | None = None
    ) -> Call[dict[str, Any]]:
        """All that an auditor needs to check a deletion request offline: see `lethe verify`.

        Args:
            since: size of a checkpoint that you kept; the log is then shown to continue it.
        """
        query = {"request": request_id, "since": since}
        return get("/v1/audit/bundle", dict[str, Any], query)

    @route
    def read_predicate_schema(self) -> Call[dict[str, Any]]:
        """The JSON Schema of what certificates state."""
        call = get("/v1/audit/predicate-schema", dict[str, Any])
        return replace(call, accept="application/schema+json")
