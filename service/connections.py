"""How long a connection may keep us waiting, and how much it may send: `uvicorn --http`.

httptools, which parses what arrives, sets no limit to either. `Gate` has the deadline of a body
that is asked for; this has all others, and none of them needs the key.
"""

import asyncio
import json
import socket
import struct
from collections import OrderedDict
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service import headers
from service.problems import MEDIA_TYPE, document

HEADERS_S = 10.0
"""Seconds within which the headers of a request must have arrived, and within which a connection
must begin a request."""

REST_S = 5.0
"""Seconds for the rest of a body that has been answered already. It is not looked at, but a client
that is still sending would not read the answer if it were cut off at once."""

WRITING_S = 60.0
"""Seconds within which a client must take `LEAST` bytes of what was written to it, or all."""

LEAST = 2**16

MAX_HEADERS = 64 * 2**10
"""Bytes of a request line and its headers."""

MAX_WAITING = 400
"""Connections that wait for headers at once. Those of honest clients arrive at once, so beyond this
number the one that has waited longest is cut."""

_waiting: OrderedDict["Connection", None] = OrderedDict()


class Connection(HttpToolsProtocol):
    """A connection that is cut when its client is too slow or sends too much.

    Cut means without an answer: whoever sends half a request does not read one.
    """

    _reading: asyncio.TimerHandle | None = None
    _writing: asyncio.TimerHandle | None = None
    _in_headers = False
    _complete = True
    """Whether the request has arrived to its end."""

    _arrived = 0
    """Bytes of the request, its headers, its framing and its trailers included."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for a request."""
        super().connection_made(transport)  # type: ignore[arg-type]
        self._wait(HEADERS_S)
        _waiting[self] = None
        if len(_waiting) > MAX_WAITING:
            next(iter(_waiting))._cut()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the deadlines."""
        super().connection_lost(exc)
        self._stop_waiting()
        self.resume_writing()

    def data_received(self, data: bytes) -> None:
        """Parse what arrived, unless it is more than a request may have."""
        super().data_received(data)
        if self.transport.is_closing():
            self._close_in(REST_S)
            return
        self._arrived += len(data)
        if self._in_headers and self._arrived > MAX_HEADERS:
            self.send_400_response("The request line and the headers are too long.")
            self._close_in(REST_S)
        elif not self._complete and self._arrived > self._most():
            self._cut()

    def on_message_begin(self) -> None:
        """Begin a request: its headers must follow soon."""
        super().on_message_begin()
        self._in_headers, self._complete, self._arrived = True, False, 0
        self._wait(HEADERS_S)

    def on_headers_complete(self) -> None:
        """Hand the request over. From now on `Gate` counts and waits."""
        self._in_headers = False
        self._stop_waiting()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """End the request: the client has nothing more to do."""
        self._complete = True
        self._stop_waiting()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Wait for the rest of the request, or for the next one."""
        super().on_response_complete()
        if self.transport.is_closing():
            self._close_in(WRITING_S)
        elif not self._complete and not self._in_headers:
            self._wait(REST_S)
        elif self._complete and self.cycle.response_complete:
            self._wait(HEADERS_S)

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection, even if the client does not take what was written."""
        super().timeout_keep_alive_handler()
        self._close_in(REST_S)

    def pause_writing(self) -> None:
        """Stop writing until the client has taken something."""
        super().pause_writing()
        if self._writing is None:
            self._watch_writing()

    def resume_writing(self) -> None:
        """Write again: the client has taken something."""
        super().resume_writing()
        if self._writing is not None:
            self._writing.cancel()
            self._writing = None

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP request with a problem document, and close."""
        status = HTTPStatus.BAD_REQUEST
        problem = document("bad-request", status.phrase, status, msg, instance="")
        body = json.dumps(problem).encode()
        told = {
            **headers.of_every_answer(self.scheme or "http"),
            "Content-Type": MEDIA_TYPE,
            "Content-Length": str(len(body)),
            "Connection": "close",
        }
        lines = [f"HTTP/1.1 {status} {status.phrase}", *(f"{k}: {v}" for k, v in told.items())]
        self.transport.write("\r\n".join(lines).encode("ascii") + b"\r\n\r\n" + body)
        self.transport.close()

    def _most(self) -> int:
        """Bytes of a whole request: chunks of eight bytes have twice as many as they carry."""
        limits: dict[str, Any] = self.app_state
        return MAX_HEADERS + 2 * int(limits["max_body_bytes"])

    def _wait(self, seconds: float) -> None:
        self._stop_waiting()
        _waiting[self] = None
        self._reading = self.loop.call_later(seconds, self._expired)

    def _stop_waiting(self) -> None:
        _waiting.pop(self, None)
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None

    def _close_in(self, seconds: float) -> None:
        """Cut it if its client has not taken what was written by then."""
        self._stop_waiting()
        self._reading = self.loop.call_later(seconds, self._expired)

    def _expired(self) -> None:
        """Cut it, unless it is still taking what was written: then that has a deadline."""
        if self._writing is None and self.transport.get_write_buffer_size():
            self._watch_writing()
        if self._writing is None:
            self._cut()
        else:
            self._reading = self.loop.call_later(WRITING_S, self._expired)

    def _watch_writing(self) -> None:
        left = self.transport.get_write_buffer_size()
        self._writing = self.loop.call_later(WRITING_S, self._check_writing, left)

    def _check_writing(self, before: int) -> None:
        self._writing = None
        left = self.transport.get_write_buffer_size()
        if left and before - left < LEAST:
            self._cut()
        elif left:
            self._watch_writing()

    def _cut(self) -> None:
        """End it with a reset, so that the kernel does not go on sending what nobody takes."""
        self._stop_waiting()
        plain = self.transport.get_extra_info("socket")
        if plain is not None:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()
