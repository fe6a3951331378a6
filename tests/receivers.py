"""Real HTTP servers for webhooks."""

import os
import ssl
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path

from tests.http_servers import Handler, serving

CERTIFICATE = Path(__file__).parent / "hooks.example.pem"

Answer = Callable[[BaseHTTPRequestHandler], None]


@dataclass(slots=True)
class Receiver:
    """What a server was sent, and how it answers."""

    port: int
    answer: Answer
    received: list[tuple[dict[str, str], str]] = field(default_factory=list)
    """Headers with their names in lower case, and bodies."""

    stopping: threading.Event = field(default_factory=threading.Event)

    @property
    def ids(self) -> list[str]:
        return [headers["webhook-id"] for headers, _ in self.received]


@contextmanager
def receiver(answer: Answer, *, tls: bool = False) -> Iterator[Receiver]:
    """A server on this machine that answers every POST so."""

    class Recorder(Handler):
        def do_POST(self) -> None:  # noqa: N802 (as it is called)
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            here.received.append(({k.lower(): v for k, v in self.headers.items()}, body))
            here.answer(self)

    context = None
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(CERTIFICATE)
    with serving(Recorder, tls=context, finishes=True) as port:
        here = Receiver(port, answer)
        try:
            yield here
        finally:
            here.stopping.set()


def status(code: int, **headers: str) -> Answer:
    """Answer with this status, and no body."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(code)
        for name, value in headers.items():
            request.send_header(name, value)
        request.send_header("Content-Length", "0")
        request.end_headers()

    return answer


OK = status(204)


def new_secret() -> str:
    """As the service makes them."""
    return f"whsec_{b64encode(os.urandom(32)).decode()}"
