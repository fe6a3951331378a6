"""What an auditor takes home about one deletion request, to check without this service.

`verifier/verify.py` reads it. The log's events stand in it as the bytes that were hashed.
"""

import json
from base64 import b64decode, b64encode
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from domain import trail
from domain.errors import NoCheckpoint, SizeUnknown, no_such
from domain.events import CertificateIssued
from domain.tables import (
    AuditEvent,
    Certificate,
    DeletionRequest,
    LogAnchor,
    LogCheckpoint,
    LogLeaf,
    SigningKey,
)
from evidence import entries, merkle, signed_notes, tree

FORM = "urn:lethe:bundle:v1"


async def bundle(session: AsyncSession, request_id: UUID, *, since: int | None) -> dict[str, Any]:
    """Everything about a request that the newest checkpoint covers, with its proofs.

    Args:
        since: size of an older checkpoint, which the log is to be shown to continue.

    Raises:
        NotFound: there is no such request.
        NoCheckpoint: nothing is signed yet.
        SizeUnknown: the log is not as long as `since`.
    """
    if await session.get(DeletionRequest, request_id) is None:
        raise no_such(f"deletion request {request_id}", listed_at="/v1/deletion-requests")
    newest = await newest_checkpoint(session)
    size = newest.size
    covered = entries.about(request_id).where(LogLeaf.position < size)
    events = (await session.execute(covered)).all()
    paths = [merkle.inclusion(position, size) for _, position in events]
    older = continuing(since, size)
    certified = await _certificate(session, request_id, [event for event, _ in events])
    certified_size = None if certified is None else _size_in(certified)
    from_certificate = continuing(certified_size, size)
    spans = [span for path in (*paths, older, from_certificate) for span in path]
    nodes = tree.by_node(await session.execute(tree.fetching(spans)))
    return {
        "bundle": FORM,
        "request_id": str(request_id),
        "checkpoint": newest.note,
        "keys": [
            {"name": key.name, "public_key": b64encode(key.public_key).decode()}
            for key in await session.scalars(select(SigningKey).order_by(SigningKey.id))
        ],
        "events": [
            {
                "position": position,
                "leaf": entries.entry(event, position).decode(),
                "proof": tree.proof(path, nodes),
            }
            for (event, position), path in zip(events, paths, strict=True)
        ],
        "certificate": certified,
        "certificate_consistency": certified_size
        and {"from": certified_size, "proof": tree.proof(from_certificate, nodes)},
        "consistency": since and {"from": since, "proof": tree.proof(older, nodes)},
        "anchors": [
            {
                "kind": anchor.kind,
                "size": anchor.size,
                "at": trail.instant(anchor.anchored_at),
                "receipt": anchor.receipt and b64encode(anchor.receipt).decode(),
            }
            for anchor in await session.scalars(
                select(LogAnchor).where(or_(LogAnchor.size == size, LogAnchor.size == since))
            )
        ],
    }


async def newest_checkpoint(session: AsyncSession) -> LogCheckpoint:
    """Raises NoCheckpoint when there is none."""
    newest = (await session.scalars(tree.NEWEST_CHECKPOINT)).one_or_none()
    if newest is None:
        raise NoCheckpoint(
            "No checkpoint of the audit trail has been signed yet. Try again in a few seconds. If "
            "none appears, ask your administrator to check that beat runs and that "
            "LETHE_SIGNING_KEYS names a key."
        )
    return newest


def continuing(old: int | None, size: int) -> list[merkle.Span]:
    """The spans of the consistency proof from an older size on; none when there is none to prove.

    Raises:
        SizeUnknown: the log is not as long as that.
    """
    if old is None:
        return []
    try:
        return merkle.consistency(old, size)
    except ValueError:
        raise SizeUnknown(
            f"The newest checkpoint covers {size} events; give the size of an older one, at least "
            "1. If you hold a signed checkpoint of a longer log, this log has been rolled back."
        ) from None


async def _certificate(
    session: AsyncSession, request_id: UUID, events: Sequence[AuditEvent]
) -> dict[str, Any] | None:
    """The newest certificate whose issuing is among the events."""
    numbers = [event.data["number"] for event in events if event.event == CertificateIssued.event]
    if not numbers:
        return None
    certificate = await session.get_one(Certificate, (request_id, max(numbers)))
    envelope: dict[str, Any] = json.loads(certificate.envelope)
    return envelope


def _size_in(envelope: dict[str, Any]) -> int:
    """The size of the checkpoint that a certificate names."""
    statement = json.loads(b64decode(envelope["payload"]))
    return signed_notes.read(statement["predicate"]["log"]["checkpoint"]).size
