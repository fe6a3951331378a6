"""What a client that waits is told: whether anything changed, and when to ask again."""

from hashlib import sha256

from fastapi import Request, Response
from pydantic import BaseModel

RETRY_AFTER = {"Retry-After": "2"}
"""Seconds until it is worth asking again."""


def answer(request: Request, content: BaseModel, *, is_open: bool) -> Response:
    """The content with its ETag, or 304 when the client has it already.

    Args:
        is_open: it will change without the client doing anything.
    """
    body = content.model_dump_json().encode()
    tag = f'"{sha256(body).hexdigest()[:32]}"'
    headers = {"ETag": tag, "Cache-Control": "private, no-cache"}
    if is_open:
        headers |= RETRY_AFTER
    known = request.headers.get("if-none-match", "")
    if tag in (candidate.strip().removeprefix("W/") for candidate in known.split(",")):
        return Response(status_code=304, headers=headers)
    return Response(body, headers=headers, media_type="application/json")
