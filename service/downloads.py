"""Large files, sent piece by piece: from any byte on, so that a broken download can be resumed.

Ranges as in RFC 9110, section 14. One range of bytes is served; anything else in `Range` is
ignored, as the RFC allows, and the whole file is sent.
"""

import os
import re
from base64 import b64encode
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from anyio.to_thread import run_sync
from fastapi import Request
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from domain.errors import RangeNotSatisfiable

PIECE = 2**20
"""Bytes that are read, and held in memory, at a time."""

RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Part:
    """The bytes from `start` to before `end` of a file of `size` bytes."""

    start: int
    end: int
    size: int

    @property
    def is_whole(self) -> bool:
        return self.end - self.start == self.size


class Download(StreamingResponse):
    """Part of an open file, which is closed at the end. Reads in a thread, one piece at a time.

    A file that is deleted meanwhile is still sent to its end.
    """

    def __init__(self, file: BinaryIO, part: Part, headers: dict[str, str]) -> None:
        """All of the file with status 200, else 206 and where the part lies."""
        sent = {**headers, "Content-Length": str(part.end - part.start), "Accept-Ranges": "bytes"}
        if not part.is_whole:
            sent["Content-Range"] = f"bytes {part.start}-{part.end - 1}/{part.size}"
        status = 200 if part.is_whole else 206
        super().__init__(_pieces(file, part), status, sent, media_type="application/octet-stream")
        self.file = file

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self.file:
            await super().__call__(scope, receive, send)


async def open_file(path: Path) -> tuple[BinaryIO, int]:
    """The file and how many bytes it has. Raises OSError when it is missing or unreadable."""

    def opened() -> tuple[BinaryIO, int]:
        file = path.open("rb", buffering=0)
        return file, os.fstat(file.fileno()).st_size

    return await run_sync(opened)


def asked(request: Request, size: int, *, tag: str) -> Part:
    """Which bytes of a file of this size and entity tag the client wants.

    Raises:
        RangeNotSatisfiable: the range begins behind the end.
    """
    whole = Part(0, size, size)
    found = RANGE.fullmatch(request.headers.get("range", "").strip())
    if found is None or request.headers.get("if-range", tag) != tag:
        return whole
    first, last = found.groups()
    if not first and not last:
        return whole
    if first and last and int(last) < int(first):
        return whole
    start = int(first) if first else max(size - int(last), 0)
    end = min(int(last) + 1, size) if first and last else size
    if start >= end:
        raise RangeNotSatisfiable(
            f"The file has {size} bytes; ask for a range that begins before its end.", size=size
        )
    return Part(start, end, size)


def representation_digest(sha256: str) -> str:
    """The value of `Repr-Digest` (RFC 9530) for a file with this SHA-256, in hex."""
    return f"sha-256=:{b64encode(bytes.fromhex(sha256)).decode('ascii')}:"


async def _pieces(file: BinaryIO, part: Part) -> AsyncIterator[bytes]:
    await run_sync(file.seek, part.start)
    left = part.end - part.start
    while left:
        piece = await run_sync(file.read, min(PIECE, left))
        if not piece:
            raise OSError("the file is shorter than it was")
        left -= len(piece)
        yield piece
