"""A small HTTP server that does what networks, proxies and broken services do."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

from tests.http_servers import Handler, serving

Reply = Callable[[BaseHTTPRequestHandler], None]


@dataclass(frozen=True, slots=True)
class Received:
    """One request as it arrived."""

    method: str
    path: str
    headers: dict[str, str]
    """With their names in lower case."""

    body: bytes


@dataclass(slots=True)
class Fake:
    """What the server was sent, and how it answers: with each reply once, then the last again."""

    url: str
    replies: list[Reply] = field(default_factory=list)
    received: list[Received] = field(default_factory=list)

    def answers(self, *replies: Reply) -> None:
        self.replies[:] = replies


@contextmanager
def faking() -> Iterator[Fake]:
    """A server on this machine."""

    class Replies(Handler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            fake.received.append(Received(self.command, self.path, headers, body))
            reply = fake.replies.pop(0) if len(fake.replies) > 1 else fake.replies[0]
            reply(self)

        do_GET = do_POST = do_PATCH = do_DELETE = handle_any  # noqa: N815 (as it calls them)

    with serving(Replies) as port:
        fake = Fake(f"http://127.0.0.1:{port}")
        yield fake


def sends(status: int, body: bytes | Any = b"", **headers: str) -> Reply:
    """A whole answer: bytes, or JSON."""

    def reply(request: BaseHTTPRequestHandler) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        request.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **_names(headers)}.items():
            request.send_header(name, value)
        request.end_headers()
        request.wfile.write(content)

    return reply


def problem(status: int, slug: str, **headers: str) -> Reply:
    """A problem document."""
    members = {"type": f"urn:lethe:problem:{slug}", "title": slug, "status": status}
    return sends(status, {**members, "detail": "Mend it.", "instance": "/"}, **headers)


def hangs_up(request: BaseHTTPRequestHandler) -> None:
    """The connection is lost once the request has arrived."""
    request.close_connection = True
    request.connection.close()


def truncates(body: bytes, after: int, **headers: str) -> Reply:
    """The connection is lost within the body."""

    def reply(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        for name, value in {"Content-Length": str(len(body)), **_names(headers)}.items():
            request.send_header(name, value)
        request.end_headers()
        request.wfile.write(body[:after])
        request.wfile.flush()
        request.close_connection = True

    return reply


def _names(headers: dict[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}
