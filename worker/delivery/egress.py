"""Sends one message to a webhook, and to no other address.

The host name is resolved once, every address it resolves to is checked, and the connection goes to
one of those; certificate and SNI use the name. No proxy is used, no redirect is followed, and only
the status of the answer is read.
"""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Address, IPv6Address, ip_address

import httpcore2

from domain import destinations
from domain.errors import DestinationRefused
from domain.states import DeliveryFailure

TIME_CAP_S = 15
"""The longest one message may take, from name resolution to the status of the answer."""

RESOLVERS = ThreadPoolExecutor(64, thread_name_prefix="resolve")
"""A pool of its own: an unresponsive name server holds a thread far beyond the cap."""

KINDS = {
    DestinationRefused: DeliveryFailure.ADDRESS_REFUSED,
    TimeoutError: DeliveryFailure.TIMEOUT,
    socket.gaierror: DeliveryFailure.DNS,
    ssl.SSLError: DeliveryFailure.TLS,
}
"""Errors of a single message; all others are failed connections."""


class NotSent(Exception):
    """No answer came; `failure` says why."""

    def __init__(self, failure: DeliveryFailure) -> None:
        super().__init__(failure)
        self.failure = failure


@dataclass(frozen=True, slots=True)
class Line:
    """The connection pool that messages are sent over."""

    pool: httpcore2.AsyncConnectionPool
    development: bool

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> int:
        """The status code of the URL's answer.

        Raises:
            NotSent: there was no answer.
        """
        try:
            async with asyncio.timeout(TIME_CAP_S):
                where = destinations.parse(url, development=self.development)
                target = httpcore2.URL(
                    scheme=where.scheme.encode(),
                    host=where.host.encode(),
                    port=where.port,
                    target=where.target.encode(),
                )
                async with self.pool.stream(
                    "POST",
                    target,
                    headers=[("Host", where.authority), *headers.items()],
                    content=body,
                ) as response:
                    return response.status
        except (
            DestinationRefused, httpcore2.NetworkError, httpcore2.ProtocolError, OSError
        ) as error:  # fmt: skip
            raise NotSent(_failure(error)) from error


@asynccontextmanager
async def line(*, development: bool) -> AsyncIterator[Line]:
    """A `Line` that is open for the duration of the block.

    Args:
        development: allow webhooks over plain http and in private networks.
    """
    async with httpcore2.AsyncConnectionPool(
        ssl_context=ssl.create_default_context(),
        max_connections=None,
        max_keepalive_connections=0,
        network_backend=_Checked(development=development),
    ) as pool:
        yield Line(pool, development)


class _Checked(httpcore2.AsyncNetworkBackend):
    """Connects only to addresses that were checked."""

    def __init__(self, *, development: bool) -> None:
        self.development = development
        self.network = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 (the signature of the base class)
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        addresses = await _resolve(host, port)
        for address in addresses:
            destinations.check_address(address, development=self.development)
        for address in addresses[:-1]:
            try:
                return await self.network.connect_tcp(
                    str(address), port, timeout, local_address, socket_options
                )
            except httpcore2.ConnectError:
                continue
        return await self.network.connect_tcp(
            str(addresses[-1]), port, timeout, local_address, socket_options
        )


async def _resolve(host: str, port: int) -> list[IPv4Address | IPv6Address]:
    """The addresses that the name resolves to now, each once."""
    ask = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
    answers = await asyncio.get_running_loop().run_in_executor(RESOLVERS, ask)
    return list(dict.fromkeys(ip_address(address[0]) for *_, address in answers))


def _failure(error: BaseException | None) -> DeliveryFailure:
    """What went wrong, from the first error in the chain that says so.

    Does not follow `__cause__`: the pool of httpcore2 clears it (`raise exc from None`).
    """
    while error is not None:
        for kind, failure in KINDS.items():
            if isinstance(error, kind):
                return failure
        error = error.__context__
    return DeliveryFailure.CONNECTION
