"""Where webhooks may go: never into the network this service stands in.

Pure functions. Names are resolved when something is sent, by whoever sends; each address that a
name stands for must pass `check_address`, and the one that passed is the one to connect to.

Source: the IANA registries of special-purpose addresses (RFC 6890), and the addresses at which
clouds hand out the credentials of a machine.
"""

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from urllib.parse import urlsplit

from domain.errors import DestinationRefused

PRIVATE = tuple(
    ip_network(network)
    for network in (
        "10.0.0.0/8",
        "127.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "::1/128",
        "fc00::/7",
    )
)
"""Loopback and private networks: allowed for development."""

METADATA = tuple(
    ip_network(network)
    for network in (
        "168.63.129.16/32",  # Azure; the one among public addresses
        "fd00:ec2::254/128",  # AWS
        "fd20:ce::254/128",  # Google
    )
)
"""Where a cloud answers its machines, outside the networks that are refused anyway."""

SPECIAL = tuple(
    ip_network(network)
    for network in (
        "0.0.0.0/8",  # this network
        "100.64.0.0/10",  # carrier-grade NAT
        "169.254.0.0/16",  # link-local, and the metadata of most clouds
        "192.0.0.0/24",  # protocol assignments
        "192.0.2.0/24",  # documentation
        "192.31.196.0/24",  # AS112
        "192.52.193.0/24",  # automatic multicast tunnels
        "192.88.99.0/24",  # 6to4 relays
        "192.175.48.0/24",  # AS112
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and broadcast
        "2001::/23",  # protocol assignments, Teredo among them
        "2001:db8::/32",  # documentation
        "2620:4f:8000::/48",  # AS112
        "3fff::/20",  # documentation
    )
)
GLOBAL_UNICAST = ip_network("2000::/3")
"""All IPv6 addresses that are routed; what lies outside is loopback, local, multicast, reserved."""

NAT64 = ip_network("64:ff9b::/96")

LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
NUMBER = re.compile(r"\d+|0x[0-9a-f]*")


@dataclass(frozen=True, slots=True)
class Destination:
    """The parts of a URL that may be sent to."""

    scheme: str
    host: str
    """In lower case; an IPv6 address without its brackets."""

    port: int
    target: str
    """Path and query."""

    @property
    def authority(self) -> str:
        """As the `Host` header has it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        usual = {"https": 443, "http": 80}[self.scheme]
        return host if self.port == usual else f"{host}:{self.port}"


def parse(url: str, *, development: bool = False) -> Destination:
    """Where a URL leads.

    Args:
        development: `http` is allowed too, and addresses of private networks.

    Raises:
        DestinationRefused: nothing may be sent there, whatever its name stands for.
    """
    if not re.fullmatch(r"[!-~]+", url) or "\\" in url:
        raise DestinationRefused(
            "A URL may contain visible ASCII characters only. Percent-encode others in the path, "
            "and write the host in punycode."
        )
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise DestinationRefused("Not a valid URL: check its host and its port.") from None
    if parts.scheme not in (("https", "http") if development else ("https",)):
        raise DestinationRefused(
            "Use an https URL; http is accepted only for development (LETHE_WEBHOOK_DEVELOPMENT)."
        )
    if "@" in parts.netloc:
        raise DestinationRefused(
            "Remove the user and the password from the URL; signatures tell who sent an event."
        )
    if "#" in url:
        raise DestinationRefused("Remove the fragment (`#…`) from the URL.")
    if not host or port == 0:
        raise DestinationRefused(
            "The URL has no host, or an invalid port; write it as https://host/path."
        )
    _check_host(host, development=development)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    usual = 443 if parts.scheme == "https" else 80
    return Destination(parts.scheme, host, port or usual, target)


def _check_host(host: str, *, development: bool) -> None:
    try:
        address = ip_address(host)
    except ValueError:
        labels = host.removesuffix(".").split(".")
        if len(host) > 253 or not all(LABEL.fullmatch(label) for label in labels):
            raise DestinationRefused(
                "The host is neither a valid host name nor an IP address."
            ) from None
        if NUMBER.fullmatch(labels[-1]):  # such as 127.1 or 0x7f000001, which resolve all the same
            raise DestinationRefused("Write an IPv4 address as four decimal numbers.") from None
        if labels[-1] == "localhost" and not development:
            raise DestinationRefused(
                "localhost is the machine of this service; use a host name on the public internet."
            ) from None
    else:
        check_address(address, development=development)


def check_address(address: IPv4Address | IPv6Address, *, development: bool = False) -> None:
    """Return if an address is on the public internet, whatever form it is written in.

    Args:
        development: private networks and this machine are allowed too.

    Raises:
        DestinationRefused: it is not.
    """
    for meant in (address, *_embedded(address)):
        if not _allowed(meant, development=development):
            raise DestinationRefused(
                "The host's address is not on the public internet. Private, local, reserved and "
                "metadata addresses are refused; use a host that can be reached from outside."
            )


def _allowed(address: IPv4Address | IPv6Address, *, development: bool) -> bool:
    if any(address in network for network in METADATA):
        return False
    if any(address in network for network in PRIVATE):
        return development
    if any(address in network for network in SPECIAL):
        return False
    return address.version == 4 or address in GLOBAL_UNICAST or bool(_embedded(address))


def _embedded(address: IPv4Address | IPv6Address) -> tuple[IPv4Address, ...]:
    """The IPv4 address that a packet to this IPv6 address ends up at: mapped, NAT64, 6to4."""
    if isinstance(address, IPv4Address):
        return ()
    if address.ipv4_mapped is not None:
        return (address.ipv4_mapped,)
    if address in NAT64:
        return (IPv4Address(int(address) & 0xFFFF_FFFF),)
    if address.sixtofour is not None:
        return (address.sixtofour,)
    return ()
