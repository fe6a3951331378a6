"""Sends one message to a webhook, and nothing to anybody else.

The host's name is resolved once, every address it stands for is checked, and the connection goes
to one of those; certificate and SNI keep the name. There is no proxy, no redirect is followed, and
of the answer nothing is read but its status.
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
"""Longest that one message may take, from its name's resolution to the status of the answer."""

RESOLVERS = ThreadPoolExecutor(64, thread_name_prefix="resolve")
"""Threads of their own: a name server that does not answer keeps one far beyond the cap."""

KINDS = {
    DestinationRefused: DeliveryFailure.ADDRESS_REFUSED,
    TimeoutError: DeliveryFailure.TIMEOUT,
    socket.gaierror: DeliveryFailure.DNS,
    ssl.SSLError: DeliveryFailure.TLS,
}
"""Errors of a message; all others are failed connections."""


class NotSent(Exception):
    """No answer came; `failure` says why."""

    def __init__(self, failure: DeliveryFailure) -> None:
        super().__init__(failure)
        self.failure = failure


@dataclass(frozen=True, slots=True)
class Line:
    """What messages are sent over."""

    pool: httpcore2.AsyncConnectionPool
    development: bool

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> int:
        """The status that the URL answers with.

        Raises:
            NotSent: there was none.
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
    """A line for as long as the block lasts.

    Args:
        development: webhooks may be plain http and in private networks.
    """
    async with httpcore2.AsyncConnectionPool(
        ssl_context=ssl.create_default_context(),
        max_connections=None,
        max_keepalive_connections=0,
        network_backend=_Checked(development=development),
    ) as pool:
        yield Line(pool, development)


class _Checked(httpcore2.AsyncNetworkBackend):
    """Connects to addresses that were checked, and to no others."""

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
    """The addresses that the name stands for now, each once."""
    ask = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
    answers = await asyncio.get_running_loop().run_in_executor(RESOLVERS, ask)
    return list(dict.fromkeys(ip_address(address[0]) for *_, address in answers))


def _failure(error: BaseException | None) -> DeliveryFailure:
    """What it was, by the first error that says so, of those it arose from.

    Not by `__cause__`: the pool of httpcore2 clears that (`raise exc from None`).
    """
    while error is not None:
        for kind, failure in KINDS.items():
            if isinstance(error, kind):
                return failure
        error = error.__context__
    return DeliveryFailure.CONNECTION
