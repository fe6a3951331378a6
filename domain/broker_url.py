"""What `LETHE_BROKER_URL` says, read once for both clients: kombu, which carries doorbells, and
redis-py, with which the API checks that the broker answers.

Left to themselves they differ: kombu does not verify the certificate of a plain `rediss://`, names
the database of a socket `virtual_host`, and takes `;` for a list of servers.
"""

import re
import ssl
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from pydantic import SecretStr

from domain.database_url import ENCODE

OVER_TCP = {"redis": False, "valkey": False, "rediss": True, "valkeys": True}
"""Whether each scheme means TLS."""

SOCKETS = ("unix", "redis+socket")
DATABASE = ("db", "virtual_host")
"""Either names the database in the query."""

REQUIREMENTS = {
    "required": ssl.CERT_REQUIRED,
    "optional": ssl.CERT_OPTIONAL,
    "none": ssl.CERT_NONE,
}
FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
TLS = ("ssl_cert_reqs", "ssl_check_hostname", *FILES)


@dataclass(frozen=True, slots=True)
class Broker:
    """Where the broker is, and how to speak to it."""

    host: str
    port: int
    path: str | None
    """Of a Unix socket, instead of host and port."""

    database: int
    username: str | None = field(repr=False)
    password: str | None = field(repr=False)
    tls: dict[str, Any] | None
    """The options of TLS, as redis-py and kombu both name them; None without TLS."""

    @classmethod
    def of(cls, url: SecretStr | str) -> "Broker":
        """What the URL says.

        Raises:
            ValueError: it cannot be read, or would not mean the same to both clients; the message
                is for people, and holds no secret.
        """
        if isinstance(url, SecretStr):
            url = url.get_secret_value()
        scheme, separator, _ = url.partition("://")
        scheme = scheme.lower()
        if scheme == "sentinel":
            raise ValueError("names a Sentinel, which Lethe does not ask; name the primary itself")
        if not separator or scheme not in (*OVER_TCP, *SOCKETS):
            raise ValueError(
                "must begin with `redis://`, or with `rediss://` for TLS, as in "
                "`redis://:password@host:6379/0`"
            )
        if re.search(r"[\s\x00-\x1f\x7f]", url):
            raise ValueError("holds a space or a line break; remove it, or write a space as %20")
        if "#" in url or re.search(r"%(?![0-9A-Fa-f]{2})", url):
            raise ValueError(f"has a # or a % that is not encoded. {ENCODE}")
        try:
            return cls._read(scheme, url)
        except UnicodeError:
            raise ValueError("must be percent-encoded UTF-8") from None

    @classmethod
    def _read(cls, scheme: str, url: str) -> "Broker":
        try:
            parts = urlsplit(f"//{url.partition('://')[2]}")
            host, port = parts.hostname or "localhost", parts.port
        except ValueError:
            raise ValueError(f"has no readable host and port. {ENCODE}") from None
        is_socket = scheme in SOCKETS
        if not re.fullmatch(r"[A-Za-z0-9._:-]+", host) or port == 0:
            raise ValueError(f"must name one host, and one port from 1 to 65535. {ENCODE}")
        if is_socket and (parts.hostname or not parts.path.strip("/")):
            raise ValueError(
                "must name the path of the socket, as in `unix:///run/redis.sock?db=0`"
            )
        options = _options(parts.query)
        has_tls = OVER_TCP.get(scheme, False)
        _check_names(options, has_tls)
        named = [options[name] for name in DATABASE if name in options]
        if not is_socket and parts.path.strip("/"):
            named.append(_decoded(parts.path[1:]))
        return cls(
            host=host,
            port=port or 6379,
            path=_decoded(parts.path) if is_socket else None,
            database=_database(named),
            username=_decoded(parts.username or "") or None,
            password=_decoded(parts.password or "") or None,
            tls=_tls(options) if has_tls else None,
        )

    @property
    def for_kombu(self) -> str:
        """A URL that kombu reads as this; `tls` goes beside it."""
        user = quote(self.username or "", safe="")
        password = f":{quote(self.password, safe='')}" if self.password else ""
        login = f"{user}{password}@" if user or password else ""
        if self.path is not None:
            socket = quote(self.path, safe="/")
            return f"redis+socket://{login}{socket}?virtual_host={self.database}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"redis://{login}{host}:{self.port}/{self.database}"

    @property
    def for_redis(self) -> dict[str, Any]:
        """What redis-py's `Redis` is called with."""
        place: dict[str, Any] = {"host": self.host, "port": self.port}
        if self.path is not None:
            place = {"unix_socket_path": self.path}
        login = {"username": self.username, "password": self.password}
        tls = {"ssl": True, **self.tls} if self.tls is not None else {}
        return {**place, **login, **tls, "db": self.database}


def _decoded(text: str) -> str:
    return unquote(text, errors="strict")


def _options(query: str) -> dict[str, str]:
    pairs = parse_qsl(query, keep_blank_values=True, errors="strict")
    if len({name for name, _ in pairs}) < len(pairs):
        raise ValueError("has an option twice; leave one")
    return dict(pairs)


def _check_names(options: dict[str, str], has_tls: bool) -> None:
    known = (*DATABASE, *(TLS if has_tls else ()))
    if set(options) - set(known):
        raise ValueError(
            f"has an option that is not one of {', '.join(known)}. "
            + ("" if has_tls else "Those of TLS need `rediss://`. ")
            + f"User name and password stand before the host. {ENCODE}"
        )


def _database(named: list[str]) -> int:
    if len(set(named)) > 1:
        raise ValueError("names two databases; leave one")
    text = named[0] if named else "0"
    if not re.fullmatch(r"[0-9]{1,6}", text):
        raise ValueError(
            f"must name the database by a number, as in `redis://host:6379/0`. {ENCODE}"
        )
    return int(text)


def _tls(options: dict[str, str]) -> dict[str, Any]:
    """Everything is verified, unless the URL says otherwise."""
    wanted = options.get("ssl_cert_reqs", "required").lower().removeprefix("cert_")
    checks = options.get("ssl_check_hostname", "false" if wanted == "none" else "true").lower()
    if wanted not in REQUIREMENTS or checks not in ("true", "false"):
        raise ValueError(
            f"must have one of {', '.join(REQUIREMENTS)} as `ssl_cert_reqs`, and true or false as "
            "`ssl_check_hostname`"
        )
    if wanted == "none" and checks == "true":
        raise ValueError("checks the host name of a certificate that it does not verify")
    return {
        "ssl_cert_reqs": REQUIREMENTS[wanted],
        "ssl_check_hostname": checks == "true",
        **{name: options[name] for name in FILES if name in options},
    }
