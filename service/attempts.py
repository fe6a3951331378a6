"""Requests without the right key: counted, and answered only so often for each client."""

from collections import OrderedDict
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from time import monotonic
from typing import Literal

Reason = Literal["missing", "wrong"]

ALLOWED = 20
"""Failures of one client within a window that are each answered with 401, and logged."""

WINDOW_S = 60.0

REMEMBERED = 4096
"""Clients that are remembered at most; the one whose window began first is forgotten first."""


class FailedAttempts:
    """What is known of failures to authenticate. Nothing of it is a key, or part of one."""

    def __init__(self) -> None:
        self.failures: dict[Reason, int] = {"missing": 0, "wrong": 0}
        """How often the key was missing, and how often it was not the right one."""

        self.throttled = 0
        """How many of those failures were answered with 429."""

        self._windows: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def failed(self, client: str, reason: Reason) -> tuple[int, float]:
        """Count a failure.

        Args:
            client: its address. Those in one IPv6 network of 64 bits count as one client, because
                one customer has all of them.

        Returns:
            The client's failures in its window, with this one, and seconds until the window ends.
        """
        self.failures[reason] += 1
        name, now = _counted_as(client), monotonic()
        since, count = self._windows.get(name, (now, 0))
        if now - since >= WINDOW_S:
            since, count = now, 0
        if count == 0:
            self._windows.pop(name, None)
            while len(self._windows) >= REMEMBERED:
                self._windows.popitem(last=False)
        count += 1
        self._windows[name] = since, count
        self.throttled += count > ALLOWED
        return count, since + WINDOW_S - now


def shown(client: str, mode: Literal["address", "network", "none"]) -> str | None:
    """An address as the log may show it; None if it may not.

    A `network` has 24 bits of an IPv4 address and 48 of an IPv6 address.
    """
    if mode == "none":
        return None
    address = _parsed(client)
    if mode == "address" or address is None:
        return client
    bits = 24 if address.version == 4 else 48
    return str(ip_network((address, bits), strict=False))


def _counted_as(client: str) -> str:
    address = _parsed(client)
    if isinstance(address, IPv6Address):
        return str(ip_network((address, 64), strict=False))
    return client


def _parsed(client: str) -> IPv4Address | IPv6Address | None:
    """The address, also of an IPv4 client that is written as IPv6; None if it is none."""
    try:
        address = ip_address(client)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
