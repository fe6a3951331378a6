"""Where the service is, and whether a key may be sent there."""

import re
from ipaddress import ip_address
from urllib.parse import urlsplit

from lethe.errors import InsecureAddress, NotSent


def checked(url: str, *, insecure: bool) -> str:
    """The address without a slash at its end.

    Args:
        insecure: whether a key may travel unencrypted to another machine.

    Raises:
        NotSent: it is not the address of a service.
        InsecureAddress: the key would travel unencrypted.
    """
    try:
        parts = urlsplit(url.strip())
        is_one = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # no URL, or no port; what it repeats may be a password
        is_one = False
    if not is_one:
        raise NotSent("The URL of the service looks like https://lethe.example.com.")
    if parts.username is not None or parts.query or parts.fragment:
        raise NotSent("The URL of the service has no user, no password, no query, no fragment.")
    if parts.scheme == "http" and not insecure and not is_local(url):
        raise InsecureAddress(
            f"The key would travel unencrypted to {parts.hostname}. Use https://. If the network "
            "between is trusted, allow it with insecure=True (on the command line: --insecure)."
        )
    return url.strip().rstrip("/")


def sendable(key: str) -> str:
    """The key, without space around it.

    Raises:
        NotSent: it cannot be sent. What is wrong with it is not repeated.
    """
    if not re.fullmatch(r"[\x21-\x7e]+", key.strip()):
        raise NotSent(
            "The key is empty, or has a character that no key has: take the value of "
            "LETHE_ADMIN_KEY, in one line."
        )
    return key.strip()


def is_local(url: str) -> bool:
    """Whether the address is on this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
