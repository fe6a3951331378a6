"""Keeps the audit trail's Merkle tree, signs checkpoints of it, and anchors them elsewhere.

Idempotent; an advisory lock admits one process at a time. Events are in the trail as soon as their
transaction commits; they are hashed here, when a checkpoint is due.
"""

from base64 import b64encode
from collections.abc import Iterable, Sequence
from datetime import datetime

import structlog
from securesystemslib.signer import Signer
from sqlalchemy import (
    ARRAY,
    BigInteger,
    Integer,
    LargeBinary,
    exists,
    func,
    insert,
    literal,
    select,
)
from sqlalchemy.orm import Session, sessionmaker

from domain import trail
from domain.events import (
    CertificateIssued,
    RequestCompleted,
    RequestShredded,
    SigningKeyIntroduced,
    VersionPurged,
)
from domain.settings import WorkerSettings
from domain.tables import AuditEvent, LogCheckpoint, LogLeaf, LogNode, SigningKey
from evidence import entries, merkle, signed_notes, tree
from evidence.merkle import Node
from evidence.signed_notes import Checkpoint
from worker.evidence import certificates, signing

KEEPER_LOCK = 0x1E7F11
HASHED_AT_ONCE = 10_000
"""Events whose leaves are added in one transaction."""

URGENT = tuple(
    kind.event for kind in (RequestCompleted, RequestShredded, CertificateIssued, VersionPurged)
)
"""Events after which a checkpoint is made at once."""

log = structlog.get_logger()


def keep(
    sessions: sessionmaker[Session], signers: Sequence[Signer], settings: WorkerSettings
) -> None:
    """Make a checkpoint if one is due, and issue the certificates it allows.

    Certificates are events too, so another checkpoint follows.
    """
    keys = [signing.note_key(signer, settings.log_origin) for signer in signers]
    if not keys:
        return
    introduce(sessions, keys)
    certificates.issue_due(sessions, signers[0])
    while size := due(sessions, settings):
        while hash_events(sessions, upto=size):
            pass
        if not checkpoint(sessions, keys, settings.log_origin, size):
            return
        certificates.issue_due(sessions, signers[0])


def introduce(sessions: sessionmaker[Session], keys: Sequence[signed_notes.NoteKey]) -> None:
    """Record keys that sign for the first time in the trail. Each is paired with a known key that
    signs beside it, and each of the two endorses the other.

    Anyone who trusts either key can then trust both. No one else can introduce a key, because write
    access to the database does not give these signatures.
    """
    with sessions.begin() as session:
        if not _alone(session):
            return
        known = set(session.scalars(select(SigningKey.public_key)))
        for key in keys:
            if key.public in known:
                continue
            replaced = next((other for other in keys if other.public in known), None)
            row = SigningKey(name=key.name, public_key=key.public)
            session.add(row)
            session.flush()
            trail.record(
                session, "worker", row.id,
                SigningKeyIntroduced(
                    name=key.name, public_key=_text(key.public),
                    replaces=_text(replaced.public) if replaced else None,
                    endorsement=_word(replaced, key) if replaced else None,
                    acknowledgement=_word(key, replaced) if replaced else None,
                ),
            )  # fmt: skip
            known.add(key.public)


def due(sessions: sessionmaker[Session], settings: WorkerSettings) -> int | None:
    """The size of the log if a checkpoint is due now, else None."""
    with sessions.begin() as session:
        size = _size(session)
        newest = session.scalars(tree.NEWEST_CHECKPOINT).one_or_none()
        if newest is None:
            return size or None
        now: datetime = session.scalars(select(func.now())).one()
        is_late = now - newest.created_at >= settings.checkpoint_interval
        urgent = exists().where(
            LogLeaf.position >= newest.size,
            LogLeaf.event_id == AuditEvent.id,
            AuditEvent.event.in_(URGENT),
        )
        waiting = size - newest.size
        if waiting and (
            is_late or waiting >= settings.checkpoint_events or session.scalar(select(urgent))
        ):
            return size
        return None


def hash_events(sessions: sessionmaker[Session], *, upto: int) -> bool:
    """Add leaves for the next events before position `upto`; return whether there were any."""
    with sessions.begin() as session:
        if not _alone(session):
            return False
        hashed = _hashed(session)
        events = session.execute(
            select(AuditEvent, LogLeaf.position)
            .join(LogLeaf, LogLeaf.event_id == AuditEvent.id)
            .where(LogLeaf.position >= hashed, LogLeaf.position < upto)
            .order_by(LogLeaf.position)
            .limit(HASHED_AT_ONCE)
            .execution_options(populate_existing=True)
        ).all()
        leaves = [merkle.leaf_hash(entries.entry(event, position)) for event, position in events]
        edge = tree.by_node(session.execute(tree.fetching([(0, hashed)])))
        _store(session, merkle.grow(hashed, edge, leaves).items())
        return bool(events)


def checkpoint(
    sessions: sessionmaker[Session], keys: Sequence[signed_notes.NoteKey], origin: str, size: int
) -> bool:
    """Sign the log at this size; False if that was done before, or events are not hashed yet."""
    with sessions.begin() as session:
        if not _alone(session) or _hashed(session) < size:
            return False
        if session.get(LogCheckpoint, size) is not None:
            return False
        whole = (0, size)
        nodes = tree.by_node(session.execute(tree.fetching([whole])))
        note = signed_notes.signed(Checkpoint(origin, size, merkle.hash_of(whole, nodes)), keys)
        session.add(LogCheckpoint(size=size, note=note))
    log.info("log.checkpoint", size=size)
    return True


def _alone(session: Session) -> bool:
    return bool(session.scalar(select(func.pg_try_advisory_xact_lock(KEEPER_LOCK))))


def _size(session: Session) -> int:
    """The number of events in the log."""
    return session.scalars(select(func.coalesce(func.max(LogLeaf.position) + 1, 0))).one()


def _hashed(session: Session) -> int:
    """The number of events whose leaves are in the tree."""
    highest = select(func.coalesce(func.max(LogNode.index) + 1, 0)).filter_by(level=0)
    return session.scalars(highest).one()


def _store(session: Session, nodes: Iterable[tuple[Node, bytes]]) -> None:
    rows = [(level, index, node) for (level, index), node in nodes]
    if not rows:
        return
    levels, indexes, hashes = (list(column) for column in zip(*rows, strict=True))
    listed = (
        func.unnest(
            literal(levels, ARRAY(Integer)),
            literal(indexes, ARRAY(BigInteger)),
            literal(hashes, ARRAY(LargeBinary)),
        )
        .table_valued("level", "index", "hash", name="listed")
        .render_derived()
    )
    session.execute(
        insert(LogNode).from_select(
            ["level", "index", "hash"], select(listed.c.level, listed.c.index, listed.c.hash)
        )
    )


def _word(key: signed_notes.NoteKey, other: signed_notes.NoteKey) -> str:
    """The signature by which one key vouches for another."""
    return _text(key.sign(signed_notes.endorsing(other.name, other.public)))


def _text(raw: bytes) -> str:
    return b64encode(raw).decode()
