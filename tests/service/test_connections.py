"""Slow clients, those that never end and those that take nothing are cut off: on real sockets."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from fastapi import FastAPI, Request, Response
from uvicorn.config import Config
from uvicorn.server import ServerState

from service import connections, problems
from service.attempts import FailedAttempts
from service.middleware import Gate, with_headers
from tests.conftest import KEY

LIMIT = 2**16
Opened = tuple[asyncio.StreamReader, asyncio.StreamWriter]
HEAD = f"POST /v1/read HTTP/1.1\r\nHost: lethe\r\nAuthorization: Bearer {KEY}\r\n".encode()
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("HEADERS_S", "REST_S", "WRITING_S"):
        monkeypatch.setattr(connections, name, 0.3)
    yield
    assert not connections._waiting


@pytest.fixture
async def connect(settings) -> AsyncIterator[Callable[[], Awaitable[Opened]]]:
    """Open a connection to a server with the gate of the API and two routes behind it."""
    app = FastAPI()
    limits = {"max_body_bytes": LIMIT, "body_timeout": timedelta(seconds=0.5)}
    app.add_middleware(Gate, settings=settings.model_copy(update=limits), failed=FailedAttempts())
    problems.install(app)

    @app.post("/v1/read")
    async def read(request: Request) -> int:
        return len(await request.body())

    @app.get("/v1/large")
    async def large() -> Response:
        return Response(bytes(2**25))

    config = Config(with_headers(app), ws="none", lifespan="off", log_config=None)
    config.load()
    loop, state = asyncio.get_running_loop(), ServerState()
    server = await loop.create_server(
        lambda: connections.Connection(config, state, {"max_body_bytes": LIMIT}, loop),
        "127.0.0.1",
        0,
    )
    opened: list[Opened] = []

    async def connect() -> Opened:
        host, port = server.sockets[0].getsockname()
        opened.append(await asyncio.open_connection(host, port))
        return opened[-1]

    yield connect
    for _, writer in opened:
        writer.close()
    server.close()
    await asyncio.sleep(0)
    for connection in list(state.connections):
        connection.transport.abort()
    await asyncio.sleep(0.05)


async def until_cut(reader: asyncio.StreamReader) -> bytes:
    """What arrives until the connection ends. Raises TimeoutError if it does not end soon."""
    told = b""
    async with asyncio.timeout(3):
        try:
            while piece := await reader.read(2**16):
                told += piece
        except ConnectionError:
            pass
    return told


async def trickle(writer: asyncio.StreamWriter, piece: bytes, *, every_s: float = 0.02) -> None:
    """Send it again and again until the connection is gone."""
    try:
        while not writer.is_closing():
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(every_s)
    except ConnectionError:
        pass


async def answer(reader: asyncio.StreamReader) -> tuple[int, bytes, Any]:
    """The status, the head and the body of the next answer."""
    async with asyncio.timeout(3):
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        return int(head.split()[1]), head.lower(), json.loads(await reader.readexactly(length))


@pytest.mark.parametrize(
    ("first", "then"),
    [
        (b"", b""),  # nothing ever
        (b"POST /v1/read HT", b""),  # half a request, and silence
        (b"GET /livez HTTP/1.1\r\n", b"X: y\r\n"),  # headers that do not end
        (b"", b"\r\n"),  # empty lines, which a parser skips
        (HEAD + b"Content-Length: 1\r\n\r\nx", b"\r\n"),  # the same after an answer
    ],
    ids=["silent", "half", "headers", "lines", "kept alive"],
)
async def test_a_request_that_does_not_begin_is_cut(connect, first, then):
    reader, writer = await connect()
    writer.write(first)
    began = time.monotonic()
    sending = asyncio.create_task(trickle(writer, then)) if then else None

    await until_cut(reader)

    assert 0.2 < time.monotonic() - began < 1.5
    writer.close()
    if sending:
        await sending


async def test_headers_that_do_not_end_are_refused_at_64_kib(connect):
    reader, writer = await connect()
    writer.write(b"GET /livez HTTP/1.1\r\nX: ")
    sending = asyncio.create_task(trickle(writer, b"y" * 2**14, every_s=0))

    status, head, problem = await answer(reader)

    assert (status, problem["type"]) == (400, "urn:lethe:problem:bad-request")
    assert b"\r\nx-content-type-options: nosniff\r\n" in head
    await until_cut(reader)
    writer.close()
    await sending


@pytest.mark.parametrize(
    ("head", "piece"),
    [(HEAD + b"Content-Length: 60000\r\n\r\n", b"x"), (CHUNKED, b"1\r\nx\r\n")],
    ids=["declared", "chunked"],
)
async def test_a_body_that_trickles_is_answered_with_408(connect, head, piece):
    reader, writer = await connect()
    writer.write(head)
    sending = asyncio.create_task(trickle(writer, piece))

    status, _, problem = await answer(reader)

    assert (status, problem["type"]) == (408, "urn:lethe:problem:body-too-slow")
    assert "LETHE_BODY_TIMEOUT" in problem["detail"]
    await until_cut(reader)
    writer.close()
    await sending


async def test_a_body_that_nobody_reads_is_not_waited_for(connect):
    reader, writer = await connect()
    writer.write(b"POST /v1/read HTTP/1.1\r\nHost: lethe\r\nContent-Length: 60000\r\n\r\n")
    sending = asyncio.create_task(trickle(writer, b"x"))

    status, _, _ = await answer(reader)

    assert status == 401
    await until_cut(reader)
    writer.close()
    await sending


@pytest.mark.parametrize(
    ("head", "piece"),
    [
        (CHUNKED + b"0\r\nX: ", b"y" * 2**14),
        (CHUNKED + b"1;", b"y" * 2**14),
        (HEAD + b"Content-Length: 99999999\r\n\r\n", b"y" * 2**14),
    ],
    ids=["trailer", "extension", "refused"],
)
async def test_what_is_no_body_does_not_arrive_for_ever(connect, monkeypatch, head, piece):
    monkeypatch.setattr(connections, "REST_S", 60)
    reader, writer = await connect()
    writer.write(head)
    sent = 0

    async def send() -> None:
        nonlocal sent
        try:
            while not writer.is_closing():
                writer.write(piece)
                await writer.drain()
                sent += len(piece)
        except ConnectionError:
            pass

    sending = asyncio.create_task(send())
    await until_cut(reader)
    writer.close()
    await sending

    assert sent < 100 * LIMIT  # what the sockets' buffers took among it


async def test_a_body_is_counted_as_it_comes(connect):
    for length in (b"Content-Length: 65536\r\n\r\n" + bytes(LIMIT), None):
        reader, writer = await connect()
        if length:
            writer.write(HEAD + length)
            assert (await answer(reader))[::2] == (200, LIMIT)
        else:
            chunk = b"1000\r\n" + bytes(0x1000) + b"\r\n"
            writer.write(CHUNKED + chunk * 17 + b"0\r\n\r\n")
            status, _, problem = await answer(reader)
            assert (status, problem["type"]) == (413, "urn:lethe:problem:body-too-large")
        writer.close()


async def test_half_open_connections_make_room(connect, monkeypatch):
    monkeypatch.setattr(connections, "HEADERS_S", 30)
    monkeypatch.setattr(connections, "MAX_WAITING", 4)
    first = [await connect() for _ in range(4)]
    for _, writer in first:
        writer.write(b"GET / HTTP/1.1\r\nX: ")
    reader, writer = await connect()
    writer.write(HEAD + b"Content-Length: 0\r\n\r\n")

    assert (await answer(reader))[0] == 200
    assert await until_cut(first[0][0]) == b""
    assert not first[3][0].at_eof()


LARGE = f"GET /v1/large HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n\r\n".encode()


async def test_who_takes_nothing_is_cut(connect):
    reader, writer = await connect()
    writer.transport.pause_reading()
    writer.write(LARGE)
    await asyncio.sleep(1)
    writer.transport.resume_reading()

    assert len(await until_cut(reader)) < 2**25


async def test_who_takes_it_slowly_gets_it_all(connect):
    reader, writer = await connect()
    writer.write(LARGE)
    head = await reader.readuntil(b"\r\n\r\n")
    taken = 0
    for _ in range(20):
        taken += len(await reader.readexactly(2**20))
        await asyncio.sleep(0.05)
    taken += len(await reader.readexactly(2**25 - taken))

    assert (head[:12], taken) == (b"HTTP/1.1 200", 2**25)
