"""A pooler in transaction mode, as small as one can be: what PgBouncer does to a client.

Each transaction gets the next server connection in turn, sessions share them, the process id that a
client is told is invented, and startup parameters that are not known are refused or left out. It
speaks enough of the protocol for statements; it knows no COPY.
"""

import socket
import struct
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

KNOWN = {b"user", b"database", b"client_encoding", b"application_name"}
CANCEL, TLS, GSS = 80877102, 80877103, 80877104


class Pooler:
    """Listens on `port`, and hands transactions to two connections to the server at `path`."""

    def __init__(self, path: Path, *, ignores: frozenset[bytes] = frozenset()) -> None:
        self.path, self.ignores = path, ignores
        self.servers: deque[tuple[socket.socket, list[bytes]]] = deque()
        self.opened: list[socket.socket] = []
        """All of these; one that serves a client is not among `servers`."""

        self.free = threading.Condition()
        self.transactions = 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]

    def serve(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._client, args=[client], daemon=True).start()

    def _client(self, client: socket.socket) -> None:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with client, suppress(OSError, EOFError):
            parameters = self._greeted(client)
            unknown = parameters.keys() - KNOWN - self.ignores
            if unknown:
                said = b"SFATAL\0C08P01\0Munsupported startup parameter: " + min(unknown) + b"\0\0"
                client.sendall(message(b"E", said))
                return
            status = self._connected(parameters)
            invented = message(b"K", struct.pack("!ii", -4711, 42))
            client.sendall(message(b"R", bytes(4)) + b"".join(status) + invented + READY)
            while True:
                self._transaction(client)

    def _greeted(self, client: socket.socket) -> dict[bytes, bytes]:
        while True:
            (length,) = struct.unpack("!i", read(client, 4))
            body = read(client, length - 4)
            (code,) = struct.unpack("!i", body[:4])
            if code in (TLS, GSS):
                client.sendall(b"N")
            elif code == CANCEL:
                raise EOFError
            else:
                words = body[4:].rstrip(b"\0").split(b"\0")
                return dict(zip(words[::2], words[1::2], strict=False))

    def _connected(self, parameters: dict[bytes, bytes]) -> list[bytes]:
        """Two connections to the server, made for the first client; what they said of it."""
        with self.free:
            while len(self.servers) < 2 and not self.transactions:
                server = socket.socket(socket.AF_UNIX)
                self.opened.append(server)
                server.connect(str(self.path))
                words = [
                    part for name in (b"user", b"database") for part in (name, parameters[name])
                ]
                body = struct.pack("!i", 196608) + b"\0".join(words) + b"\0\0"
                server.sendall(struct.pack("!i", len(body) + 4) + body)
                said = list(until_ready(server))
                self.servers.append((server, [each for each in said if each[:1] == b"S"]))
            return self.servers[0][1] if self.servers else []

    def _transaction(self, client: socket.socket) -> None:
        kind, sent = next_message(client)
        if kind == b"X":
            raise EOFError
        with self.free:
            self.free.wait_for(lambda: self.servers)
            server, status = self.servers.popleft()
            self.transactions += 1
        try:
            while True:
                server.sendall(sent)
                if kind in (b"Q", b"S"):
                    for said in until_ready(server):
                        client.sendall(said)
                    if said[-1:] == b"I":
                        return
                kind, sent = next_message(client)
        finally:
            with self.free:
                self.servers.append((server, status))
                self.free.notify()


def message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!i", len(body) + 4) + body


READY = message(b"Z", b"I")


def read(end: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size:
        part = end.recv(size - len(found))
        if not part:
            raise EOFError
        found += part
    return found


def next_message(end: socket.socket) -> tuple[bytes, bytes]:
    head = read(end, 5)
    (length,) = struct.unpack("!i", head[1:])
    return head[:1], head + read(end, length - 4)


def until_ready(server: socket.socket) -> Iterator[bytes]:
    kind = b""
    while kind != b"Z":
        kind, said = next_message(server)
        yield said


@contextmanager
def pooler(path: Path, **how: frozenset[bytes]) -> Iterator[Pooler]:
    """One in front of the server whose socket is at `path`."""
    made = Pooler(path, **how)
    threading.Thread(target=made.serve, daemon=True).start()
    try:
        yield made
    finally:
        made.listener.shutdown(socket.SHUT_RDWR)
        made.listener.close()
        for server in made.opened:
            server.close()
