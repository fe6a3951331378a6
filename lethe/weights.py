"""Downloading weights, so that no wrong file is ever left under the name that was asked for."""

import hashlib
import os
import re
from base64 import b64decode
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from os import PathLike
from pathlib import Path
from typing import IO
from uuid import uuid4

import httpx2

from lethe.calls import Answer, Call
from lethe.core import Core, passes, refusal, request, unreachable
from lethe.errors import Conflict, LetheError, NotFound, NotUnderstood, WeightsDiffer
from lethe.retrying import retry_after
from lethe.routes.models import Models
from lethe.schemas.versions import Version, VersionStatus

PARTIAL = 206

Watcher = Callable[[int, int | None], object]


@dataclass(slots=True)
class _Arriving:
    """A file that is being written beside its place, and what is known of it."""

    file: IO[bytes]
    sha256: str
    """Of all of it, in hex, as the API names it."""

    on_progress: Watcher | None
    received: int = 0
    total: int | None = None
    digest: "hashlib._Hash" = field(default_factory=hashlib.sha256)

    @property
    def tag(self) -> str:
        return f'"{self.sha256}"'

    @property
    def is_complete(self) -> bool:
        return self.received == self.total

    def begin(self, head: Answer) -> None:
        """Take note of what the answer announces: all of the file, or what is missing of it.

        Raises:
            WeightsDiffer: it announces another file.
            NotUnderstood: it is another part than the one that was asked for.
        """
        if announced(head) not in (None, self.sha256):
            raise WeightsDiffer(
                "The service announces other bytes than the version's digest: the store may be "
                "damaged. Nothing was downloaded; tell its operator."
            )
        if head.status == PARTIAL:
            start, self.total = _range(head)
            if start != self.received:
                raise NotUnderstood("The service sent another part of the file than was asked for.")
        else:
            self.file.seek(0)
            self.file.truncate()
            self.received, self.total, self.digest = 0, _length(head), hashlib.sha256()

    def take(self, chunk: bytes) -> None:
        self.file.write(chunk)
        self.digest.update(chunk)
        self.received += len(chunk)
        if self.on_progress is not None:
            self.on_progress(self.received, self.total)

    def finish(self) -> None:
        """Make sure that it is all there.

        Raises:
            WeightsDiffer: it is not what the API names.
        """
        if self.digest.hexdigest() != self.sha256:
            raise WeightsDiffer(
                f"The bytes that arrived have the SHA-256 {self.digest.hexdigest()}, but the "
                f"version's is {self.sha256}. No file was left; try again."
            )
        self.file.flush()
        os.fsync(self.file.fileno())


async def download(
    core: Core,
    model: str,
    number: int | None,
    path: str | PathLike[str],
    on_progress: Watcher | None,
) -> Version:
    """The version whose weights are then in the file.

    Where a newer champion came up meanwhile, that one is downloaded.

    Args:
        number: of the version; the champion's unless given.
    """
    place = Path(path)
    part = place.with_name(f".{place.name}.{uuid4().hex[:8]}.part")
    version = await _version(core, model, number)
    try:
        while True:
            await _fetch(core, model, version, part, on_progress)
            latest = await _version(core, model, number)
            if latest.number == version.number:
                _still_served(latest, model)
                part.replace(place)
                return latest
            version = latest
    finally:
        with suppress(FileNotFoundError):
            part.unlink()


async def _fetch(
    core: Core, model: str, version: Version, part: Path, on_progress: Watcher | None
) -> None:
    """Download all of a version into a file, and make sure of it."""
    with await core.transport.work(lambda: part.open("wb")) as file:
        arriving = _Arriving(file, version.weights_sha256, on_progress)
        await _receive(core, _call(model, version.number), arriving)
        await core.transport.work(arriving.finish)


def _still_served(version: Version, model: str) -> None:
    """Raises Conflict when the version was superseded while it was on its way."""
    if version.status is VersionStatus.SUPERSEDED:
        detail = (
            f"Version {version.number} of {model} was superseded while it was downloaded: it holds "
            "forgotten samples. No file was left; download the champion."
        )
        raise Conflict(409, {"title": "Superseded meanwhile", "detail": detail})


async def _version(core: Core, model: str, number: int | None) -> Version:
    if number is not None:
        return await core.perform(Models.read_version.describe(None, model, number))
    champion = (await core.perform(Models.read_model.describe(None, model))).champion
    if champion is None:
        raise NotFound(404, {"title": "No champion", "detail": f"{model} has no version to serve."})
    return champion


def _call(model: str, number: int) -> Call[bytes]:
    return Call(
        method="GET",
        path="/v1/models/{name}/versions/{number}/weights",
        places={"name": model, "number": number},
        reads=bytes,
        accept="application/octet-stream",
    )


async def _receive(core: Core, call: Call[bytes], arriving: _Arriving) -> None:
    """Fetch the file, and go on where a connection was lost. Attempts count from the last byte."""
    attempt = 0
    while True:
        before = arriving.received
        failure, again, asked = await _attempt(core, call, arriving)
        if failure is None:
            return
        attempt = 1 if arriving.received > before else attempt + 1
        pause = core.retries.pause(attempt, asked)
        if not again or pause is None:
            raise failure
        await core.transport.sleep(pause)


async def _attempt(
    core: Core, call: Call[bytes], arriving: _Arriving
) -> tuple[LetheError | None, bool, float | None]:
    """One request. What went wrong, whether to ask again, and after how long; or nothing."""
    headers = {"Accept-Encoding": "identity"}
    if arriving.received:
        headers |= {"Range": f"bytes={arriving.received}-", "If-Range": arriving.tag}
    try:
        async with core.transport.open(request(call, headers)) as opened:
            head = opened.head
            if head.status not in (200, PARTIAL):
                return refusal(call, head), passes(call, head), retry_after(head.headers)
            arriving.begin(head)
            async for chunk in opened.chunks:
                await core.transport.work(partial(arriving.take, chunk))
    except httpx2.RequestError as error:
        if not arriving.is_complete:
            return *unreachable(call, error), None
    return None, False, None


def announced(head: Answer) -> str | None:
    """The SHA-256, in hex, that the headers announce for all of the file; None if they do not.

    `Repr-Digest` (RFC 9530) counts; without it, an `ETag` that looks like one.
    """
    digest = re.search(r"sha-256=:([A-Za-z0-9+/=]+):", head.headers.get("repr-digest", ""))
    if digest is not None:
        return b64decode(digest[1]).hex()
    tag = re.fullmatch(r'"([0-9a-f]{64})"', head.headers.get("etag", ""))
    return None if tag is None else tag[1]


def _length(head: Answer) -> int | None:
    given = head.headers.get("content-length", "")
    return int(given) if given.isdecimal() else None


def _range(head: Answer) -> tuple[int, int | None]:
    """Where a part begins, and how long the whole file is."""
    found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", head.headers.get("content-range", ""))
    if found is None:
        raise NotUnderstood("The service sent a part of the file, and does not say which.")
    return int(found[1]), None if found[2] == "*" else int(found[2])
