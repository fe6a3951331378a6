"""How requests travel: blocking, or on an event loop.

Both have the same asynchronous interface, so that everything above is written once. What the
blocking one awaits never suspends; `run` drives such code without an event loop.
"""

import asyncio
import ssl
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol, TypeVar

import httpx2

from lethe.addresses import is_local
from lethe.calls import Answer

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Sent:
    """What is sent."""

    method: str
    target: str
    """Path, relative to the address of the service."""

    headers: dict[str, str]
    parameters: dict[str, str]
    content: bytes | None = None


@dataclass(frozen=True, slots=True)
class Opened:
    """An answer whose body is still to come."""

    head: Answer
    chunks: AsyncIterator[bytes]
    """The body; where the answer is a refusal, all of it is in `head`."""


class Transport(Protocol):
    """One of the two ways."""

    async def send(self, sent: Sent) -> Answer: ...

    def open(self, sent: Sent) -> Any:
        """The same, but the body is read piece by piece: an asynchronous context manager."""

    async def sleep(self, seconds: float) -> None: ...

    async def work(self, function: Callable[[], T]) -> T:
        """Do what blocks, such as writing a file."""

    async def close(self) -> None: ...


class Blocking:
    """Waits for each answer."""

    def __init__(self, http: httpx2.Client) -> None:
        self.http = http

    async def send(self, sent: Sent) -> Answer:
        response = self.http.send(_request(self.http, sent))
        return _answer(response, response.content)

    @asynccontextmanager
    async def open(self, sent: Sent) -> AsyncGenerator[Opened]:
        response = self.http.send(_request(self.http, sent), stream=True)
        try:
            body = b"" if response.is_success else response.read()
            yield Opened(_answer(response, body), _pieces(response.iter_raw()))
        finally:
            response.close()

    async def sleep(self, seconds: float) -> None:
        time.sleep(seconds)  # noqa: ASYNC251 (there is no event loop)

    async def work(self, function: Callable[[], T]) -> T:
        return function()

    async def close(self) -> None:
        self.http.close()


class OnLoop:
    """Lets others work meanwhile: on asyncio."""

    def __init__(self, http: httpx2.AsyncClient) -> None:
        self.http = http

    async def send(self, sent: Sent) -> Answer:
        response = await self.http.send(_request(self.http, sent))
        return _answer(response, response.content)

    @asynccontextmanager
    async def open(self, sent: Sent) -> AsyncGenerator[Opened]:
        response = await self.http.send(_request(self.http, sent), stream=True)
        try:
            body = b"" if response.is_success else await response.aread()
            yield Opened(_answer(response, body), response.aiter_raw())
        finally:
            await response.aclose()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def work(self, function: Callable[[], T]) -> T:
        return await asyncio.to_thread(function)

    async def close(self) -> None:
        await self.http.aclose()


def settings(url: str, key: str, timeout: float, agent: str) -> dict[str, Any]:
    """What both of httpx2's clients are given.

    Redirects are not followed: the key would go along. No proxy of the environment stands between
    a client and its own machine.
    """
    return {
        "base_url": url,
        "headers": {"Authorization": f"Bearer {key}", "User-Agent": agent},
        "timeout": httpx2.Timeout(timeout, connect=min(timeout, 10.0)),
        "follow_redirects": False,
        "trust_env": not is_local(url),
        "verify": _certificates(),
    }


@cache
def _certificates() -> ssl.SSLContext:
    """Whom to trust; read once, as that takes a tenth of a second."""
    return httpx2.create_ssl_context()


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine on a blocking transport."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    coroutine.close()
    raise RuntimeError("Something other than a blocking transport was awaited.")


def iterate(items: AsyncGenerator[T]) -> Iterator[T]:
    """The items of an asynchronous generator on a blocking transport."""
    with suppress(StopAsyncIteration):
        while True:
            yield run(items.__anext__())


def _request(http: httpx2.Client | httpx2.AsyncClient, sent: Sent) -> httpx2.Request:
    return http.build_request(
        sent.method,
        sent.target,
        headers=sent.headers,
        params=sent.parameters or None,
        content=sent.content,
    )


def _answer(response: httpx2.Response, body: bytes) -> Answer:
    headers = {name.lower(): value for name, value in response.headers.items()}
    return Answer(response.status_code, headers, body)


async def _pieces(chunks: Iterator[bytes]) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk
