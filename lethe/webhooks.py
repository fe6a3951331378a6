"""Receiving webhooks: whether a message comes from the service, and what it says.

Signatures follow Standard Webhooks (https://www.standardwebhooks.com): HMAC-SHA256 over the
message's id, its time and its body as they arrived.
"""

import hmac
import time
from base64 import b64decode, b64encode
from binascii import Error as NotBase64
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from lethe.errors import NotSent, WebhookRefused
from lethe.schemas.common import Result

PREFIX = "whsec_"


class WebhookEvent(Result):
    """What a webhook tells: a CloudEvent."""

    id: UUID
    """The same at every attempt to deliver it: keep it, and do nothing twice."""

    type: str
    subject: UUID
    """The deletion request; for `lethe.webhook.test` the webhook."""

    time: datetime
    data: dict[str, Any]
    """Of a request: `id`, `status`, `due_at`, `finished_at`, `models` and `checkpoint`."""


def verify_webhook(
    secret: str | Sequence[str],
    body: bytes | str,
    headers: Mapping[str, str],
    *,
    tolerance: float = 300.0,
    now: float | None = None,
) -> WebhookEvent:
    """Check that a message is signed and fresh, and read it.

    Args:
        secret: `whsec_…`, as it was shown when the webhook was registered; several while one
            replaces another.
        body: as it arrived, before anything parses it.
        headers: of the request, whatever the case of their names.
        tolerance: seconds that the message's time may differ from ours.
        now: our time as seconds since 1970; read from the clock unless given.

    Raises:
        WebhookRefused: no signature holds, or the message is too old.
    """
    given = {name.lower(): value for name, value in headers.items()}
    content = body.encode() if isinstance(body, str) else body
    message, stamp = _header(given, "webhook-id"), _header(given, "webhook-timestamp")
    _fresh(stamp, tolerance, time.time() if now is None else now)
    signed = f"{message}.{stamp}.".encode() + content
    secrets = [secret] if isinstance(secret, str) else secret
    expected = [_sign(_raw(one), signed) for one in secrets]
    offered = [
        signature.encode()
        for version, _, signature in (
            part.partition(",") for part in _header(given, "webhook-signature").split()
        )
        if version == "v1"
    ]
    matches = [hmac.compare_digest(one, other) for one in expected for other in offered]
    if not any(matches):
        raise WebhookRefused(
            "No signature of the webhook holds. Check the secret, and that the body is passed on "
            "as it arrived."
        )
    try:
        return WebhookEvent.model_validate_json(content)
    except ValueError:
        raise WebhookRefused("The webhook is signed, but is not an event of Lethe.") from None


def _header(headers: Mapping[str, str], name: str) -> str:
    if not headers.get(name):
        raise WebhookRefused(f"The webhook has no {name} header. Is it one of Lethe?")
    return headers[name]


def _fresh(stamp: str, tolerance: float, now: float) -> None:
    if not (stamp.isascii() and stamp.isdecimal() and len(stamp) <= 15):
        raise WebhookRefused("The webhook's time is not a number of seconds.")
    if abs(now - int(stamp)) > tolerance:
        raise WebhookRefused(
            "The webhook's time differs too much from ours: it is an old message sent again, or "
            "one of the two clocks is wrong."
        )


def _raw(secret: str) -> bytes:
    """The bytes of a secret.

    Raises:
        NotSent: it is not one. Its text is not repeated.
    """
    try:
        raw = b64decode(secret.removeprefix(PREFIX), validate=True)
    except (NotBase64, ValueError):
        raw = b""
    if not raw:
        raise NotSent("A webhook's secret looks like whsec_ and base64.")
    return raw


def _sign(secret: bytes, signed: bytes) -> bytes:
    return b64encode(hmac.digest(secret, signed, "sha256"))
