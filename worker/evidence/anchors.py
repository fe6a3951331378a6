"""Puts checkpoints where the database's administrator cannot change them.

A directory that an operator mounts from write-once storage, a webhook, a time-stamp authority (RFC
3161): each is used if configured. A failed anchor is retried with the next checkpoint or sweep; the
age of the newest anchor is a metric.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import httpcore2
import structlog
from cryptography.x509 import load_pem_x509_certificates
from rfc3161_client import (
    TimestampRequestBuilder,
    VerificationError,
    VerifierBuilder,
    decode_timestamp_response,
)
from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session, sessionmaker

from domain import __version__
from domain.settings import WorkerSettings
from domain.tables import LogAnchor
from evidence import tree
from worker.store.artifacts import sync

ANSWER_CAP = 64 * 2**10
"""Bytes of an answer that are read; tokens take a few thousand."""

TIMEOUT_S = 10.0

Anchor = Callable[[int, str], bytes | None]
"""Anchors the checkpoint of a given size, and returns the receipt, if there is one."""

log = structlog.get_logger()


class NotAnchored(Exception):
    """The checkpoint could not be placed, or something else is in its place."""


def configured(settings: WorkerSettings) -> dict[str, Anchor]:
    """The configured anchors, by kind."""
    anchors: dict[str, Anchor] = {}
    if directory := settings.anchor_directory:
        anchors["directory"] = lambda size, note: put(directory, size, note)
    if settings.anchor_webhook:
        webhook = str(settings.anchor_webhook.get_secret_value())
        anchors["webhook"] = lambda size, note: send(webhook, note)
    if settings.anchor_tsa and (roots := settings.anchor_tsa_roots):
        tsa = str(settings.anchor_tsa.get_secret_value())
        anchors["rfc3161"] = lambda size, note: stamp(tsa, note, roots.read_bytes())
    return anchors


def anchor_newest(sessions: sessionmaker[Session], anchors: Mapping[str, Anchor]) -> None:
    """Anchor the newest checkpoint in every place that lacks it.

    It covers all older ones. Idempotent.
    """
    with sessions.begin() as session:
        newest = session.scalars(tree.NEWEST_CHECKPOINT).one_or_none()
        if newest is None:
            return
        is_done = select(LogAnchor.kind).filter_by(size=newest.size)
        done = set(session.scalars(is_done))
    for kind in anchors.keys() - done:
        try:
            receipt = anchors[kind](newest.size, newest.note)
        except (NotAnchored, OSError, httpcore2.NetworkError, httpcore2.ProtocolError,
                httpcore2.TimeoutException) as error:  # fmt: skip
            log.warning("log.not_anchored", kind=kind, size=newest.size, why=str(error)[:200])
            continue
        with sessions.begin() as session:
            row = insert(LogAnchor).values(size=newest.size, kind=kind, receipt=receipt)
            session.execute(row.on_conflict_do_nothing())  # another process may have done it
        log.info("log.anchored", kind=kind, size=newest.size)


def put(directory: Path, size: int, note: str) -> None:
    """Write the checkpoint to a file of its own, and wait until it is on disk.

    Raises:
        NotAnchored: a different checkpoint of this size is there: the log was rewritten.
    """
    file = directory / f"{size:020}.checkpoint"
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o444)
    except FileExistsError:
        if file.read_text() != note:
            raise NotAnchored(f"{file.name} already exists and differs") from None
        return
    with os.fdopen(descriptor, "w") as written:
        written.write(note)
    sync(file)
    sync(directory)


def send(url: str, note: str) -> None:
    """Send the checkpoint to the webhook. Raises NotAnchored when it is refused."""
    _post(url, note.encode(), "text/plain; charset=utf-8")


def stamp(url: str, note: str, roots: bytes) -> bytes:
    """A time-stamp authority's token over the SHA-512 of the checkpoint.

    Args:
        roots: the trusted root certificates, in PEM.

    Raises:
        NotAnchored: the token was refused, or is not valid.
    """
    request = TimestampRequestBuilder().data(note.encode()).build()
    answer = _post(url, request.as_bytes(), "application/timestamp-query")
    builder = VerifierBuilder.from_request(request)
    for certificate in load_pem_x509_certificates(roots):
        builder = builder.add_root_certificate(certificate)
    try:
        response = decode_timestamp_response(answer)
        builder.build().verify_message(response, note.encode())
    except (ValueError, VerificationError) as error:
        raise NotAnchored(f"the token is not valid: {error}") from error
    return answer


def _post(url: str, body: bytes, content_type: str) -> bytes:
    headers = [("Content-Type", content_type), ("User-Agent", f"Lethe/{__version__}")]
    timeouts = dict.fromkeys(("connect", "read", "write", "pool"), TIMEOUT_S)
    with httpcore2.stream(
        "POST", url, headers=headers, content=body, extensions={"timeout": timeouts}
    ) as response:
        if not 200 <= response.status < 300:
            raise NotAnchored(f"the answer was {response.status}")
        answer = b""
        for part in response.iter_stream():
            answer += part
            if len(answer) > ANSWER_CAP:
                raise NotAnchored("the answer is too large")
    return answer
