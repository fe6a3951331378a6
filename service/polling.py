"""What a client that waits is told: whether anything changed, and when to ask again."""

from collections.abc import Mapping
from datetime import UTC, datetime
from hashlib import sha256
from math import ceil

from fastapi import Request, Response
from pydantic import BaseModel

from service.headers import NOT_STORED

SHORTEST_S, LONGEST_S = 2, 60

RETRY_AFTER = {"Retry-After": str(SHORTEST_S)}
"""Seconds until it is worth asking again."""


def answer(
    request: Request, content: BaseModel, *, is_open: bool, held_until: datetime | None = None
) -> Response:
    """The content with its ETag, or 304 when the client has it already.

    Args:
        is_open: it will change without the client doing anything.
        held_until: until then it does so only for others' sake.
    """
    body = content.model_dump_json().encode()
    headers = retry_after(held_until) if is_open else {}
    return conditional(request, body, media_type="application/json", headers=headers)


def retry_after(held_until: datetime | None) -> dict[str, str]:
    """When to ask again for what is not begun before this instant: within a minute even so, as it
    may be begun sooner."""
    if held_until is None:
        return RETRY_AFTER
    left_s = ceil((held_until - datetime.now(UTC)).total_seconds())
    return {"Retry-After": str(min(max(left_s, SHORTEST_S), LONGEST_S))}


def conditional(
    request: Request, body: bytes, *, media_type: str, headers: Mapping[str, str]
) -> Response:
    """The body with its ETag and these headers, or 304 when the client has it already."""
    tag = f'"{sha256(body).hexdigest()[:32]}"'
    sent = {"ETag": tag, "Cache-Control": NOT_STORED, **headers}
    if is_known(request, tag):
        return Response(status_code=304, headers=sent)
    return Response(body, headers=sent, media_type=media_type)


def is_known(request: Request, tag: str) -> bool:
    """Whether `If-None-Match` names this entity tag: the client has the content already."""
    known = request.headers.get("if-none-match", "")
    return tag in (candidate.strip().removeprefix("W/") for candidate in known.split(","))
