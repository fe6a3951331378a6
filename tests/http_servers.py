"""Real HTTP servers on this machine, each in threads of its own."""

import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Handler(BaseHTTPRequestHandler):
    """Answers, and prints nothing."""

    def log_message(self, *_: Any) -> None:
        """Nothing."""


class _Server(ThreadingHTTPServer):
    def handle_error(self, *_: Any) -> None:
        """The client hung up, as it may."""


@contextmanager
def serving(
    handler: type[Handler], *, tls: ssl.SSLContext | None = None, finishes: bool = False
) -> Iterator[int]:
    """Serve until the end of the block, on this port.

    Args:
        finishes: wait at the end until every request was answered.
    """
    with _Server(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = not finishes
        if tls:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()
