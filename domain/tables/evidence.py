"""The audit trail as a log, and what is signed."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ForeignKey,
    Identity,
    Index,
    func,
)
from sqlalchemy.orm import Mapped, mapped_column
from uuid_utils.compat import uuid7

from domain.tables.columns import Base


class AuditEvent(Base):
    """One state change, told once, in the transaction that made it.

    A trigger refuses UPDATE, DELETE and TRUNCATE, and the service's role has no right to them.
    `data` holds ids of rows, counts and digests, never a sample id.
    """

    __tablename__ = "audit_events"
    __table_args__ = (Index(None, "subject_id"),)

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    actor: Mapped[str]
    """`api` or `worker`."""

    event: Mapped[str]
    """What happened, as `subject.past_participle`."""

    subject_id: Mapped[UUID]
    data: Mapped[dict[str, Any]]


class LogLeaf(Base):
    """The place of an event in the log: from 0, without gaps, in the order of commits.

    A trigger gives it, at the end of the event's transaction.
    """

    __tablename__ = "audit_leaves"

    position: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    event_id: Mapped[int] = mapped_column(ForeignKey("audit_events.id"), unique=True)


class LogNode(Base):
    """A complete subtree of the Merkle tree over the log; `evidence.merkle` says which."""

    __tablename__ = "audit_nodes"

    level: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    index: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    hash: Mapped[bytes]


class LogCheckpoint(Base):
    """How long the log was at a moment and what was in it, signed."""

    __tablename__ = "audit_checkpoints"

    size: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    note: Mapped[str]
    """A signed note, as `evidence.signed_notes` writes it."""

    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class LogAnchor(Base):
    """A checkpoint that was put somewhere outside this database."""

    __tablename__ = "audit_anchors"
    __table_args__ = (CheckConstraint("kind IN ('directory', 'webhook', 'rfc3161')", "kind"),)

    size: Mapped[int] = mapped_column(ForeignKey("audit_checkpoints.size"), primary_key=True)
    kind: Mapped[str] = mapped_column(primary_key=True)
    receipt: Mapped[bytes | None]
    """What came back: the token of a time-stamp authority."""

    anchored_at: Mapped[datetime] = mapped_column(server_default=func.now())


class CertifiedCheckpoint(Base):
    """A checkpoint for which all certificates were issued that it is the first to allow."""

    __tablename__ = "certified_checkpoints"

    size: Mapped[int] = mapped_column(ForeignKey("audit_checkpoints.size"), primary_key=True)


class SigningKey(Base):
    """A key that signs checkpoints, from when it did so first: its public half."""

    __tablename__ = "signing_keys"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid7)
    name: Mapped[str]
    public_key: Mapped[bytes] = mapped_column(unique=True)
    """Ed25519, 32 bytes."""

    introduced_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Certificate(Base):
    """What was certified of a completed request, numbered from 1.

    A further one follows when there is more to say, such as that old weights were deleted. A
    trigger refuses UPDATE and DELETE.
    """

    __tablename__ = "certificates"

    request_id: Mapped[UUID] = mapped_column(ForeignKey("deletion_requests.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    envelope: Mapped[str]
    """The signed statement, as it is served: JSON, a DSSE envelope."""

    payload_sha256: Mapped[str]
    """Of the bytes that were signed; the audit trail names it too."""

    issued_at: Mapped[datetime] = mapped_column(server_default=func.now())
