"""What a client that waits is told: whether anything changed, and when to ask again."""

from collections.abc import Mapping
from hashlib import sha256

from fastapi import Request, Response
from pydantic import BaseModel

from service.headers import NOT_STORED

RETRY_AFTER = {"Retry-After": "2"}
"""Seconds until it is worth asking again."""


def answer(request: Request, content: BaseModel, *, is_open: bool) -> Response:
    """The content with its ETag, or 304 when the client has it already.

    Args:
        is_open: it will change without the client doing anything.
    """
    body = content.model_dump_json().encode()
    headers = RETRY_AFTER if is_open else {}
    return conditional(request, body, media_type="application/json", headers=headers)


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
